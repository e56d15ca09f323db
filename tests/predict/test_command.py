"""The command: many chains, failures, reruns, directories of other runs."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest

from tests.support.fake_prediction import (
    fake_prediction,
    predict,
    sequence,
    ten_chains,
    times_of,
    write_fasta,
)

ROOT = Path(__file__).resolve().parents[2]


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_one_chain_of_ten_fails_and_a_rerun_does_only_that_one(run, tmp_path):
    code, text, _ = run(ten_chains())
    out = tmp_path / "out"
    assert code == 1
    assert len(list(out.glob("*.cif"))) == 9 and not (out / "chain4.cif").exists()
    assert "chain4: 20 residues, FAILED (not finite): positions are not finite" in text
    assert "9 of 10 chains have a structure" in text and "1 failed: chain4" in text
    summary = summary_of(out)
    assert (summary["num_finished"], summary["num_failed"], summary["pending"]) == (9, 1, [])
    assert [entry["name"] for entry in summary["chains"]] == [f"chain{i}" for i in range(10)]
    assert summary["chains"][4]["error"]["kind"] == "not finite"
    before = times_of(out)
    code, text, _ = run(ten_chains(bad=sequence(4)))
    assert code == 0 and "9 of 10 chains are finished; 1 chain to predict" in text
    assert "[1/1] chain4" in text
    after = times_of(out)
    assert len(after) == 10 and {name: after[name] for name in before} == before
    assert summary_of(out)["num_finished"] == 10
    assert not list(out.glob("*.tmp"))


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        ("WWOOMAAAAAA", "out of memory", "the plan expected a peak of 1.00 GiB"),
        ("WWERRAAAAAA", "other", "RuntimeError: an unexpected error"),
        ("A" * 101, "does not fit", "4 GPUs would do"),
    ],
)
def test_kinds_of_failures(run, tmp_path, bad, kind, message):
    code, text, _ = run({"bad": bad, "good": sequence(0)})
    assert code == 1 and f"FAILED ({kind})" in text and message in text
    entry = summary_of(tmp_path / "out")["chains"][0]
    assert entry["error"]["kind"] == kind and entry["plan"] == {"peak_bytes": 2**30}
    assert (tmp_path / "out" / "good.cif").exists()
    assert not list((tmp_path / "out").glob("bad*.npy*"))


def test_chains_whose_input_or_features_are_wrong(run, tmp_path):
    code, text, _ = run({"a": "MK:TA", "broken": sequence(1), "c": sequence(2)})
    assert code == 1
    assert "FAILED (input): a: the sequence has a colon" in text
    assert "FAILED (features): ValueError: the alignment of broken is cut short" in text
    kinds = [entry["error"] and entry["error"]["kind"] for entry in summary_of_all(tmp_path)]
    assert kinds == ["features", None, "input"]


def summary_of_all(tmp_path: Path) -> list[dict]:
    return summary_of(tmp_path / "out")["chains"]


def test_an_input_without_any_usable_chain_is_refused(run):
    code, _, error = run({"a": "MK:TA"})
    assert code == 2 and "a: the sequence has a colon" in error


def test_written_structure_and_scores(run, tmp_path):
    run({"a|b": sequence(0)})
    out = tmp_path / "out"
    expected = fake_prediction(sequence(0), "w_ptm")
    atoms = [atom for r in gemmi.read_structure(str(out / "a_b.cif"))[0]["A"] for atom in r]
    assert len(atoms) == expected.atom_mask.sum()
    pae = np.load(out / "a_b_pae.npz")["pae"]
    assert pae.shape == (20, 20) and pae.dtype == np.float16 and (pae == 12.25).all()
    record = json.loads((out / "a_b.json").read_text())
    assert len((out / "a_b.json").read_text().splitlines()) < 80
    assert record["name"] == "a|b" and record["status"] == "finished"
    assert record["warnings"] == ["from input", "from the features"]
    assert record["templates"] == ["1abc_A"] and record["num_alignment_rows"] == 7
    (model,) = record["models"]
    assert model["plddt"] == pytest.approx(expected.plddt, abs=0.006)
    assert model["mean_plddt"] == pytest.approx(expected.plddt.mean(), abs=1e-4)
    assert model["ptm"] == pytest.approx(expected.ptm, abs=1e-4)
    assert record["file_bytes"] == {
        path.name: path.stat().st_size for path in out.glob("a_b*") if path.name != "a_b.json"
    }
    assert (
        set(record["file_bytes"])
        == set(model["files"].values())
        == {
            f"a_b{suffix}"
            for suffix in (".cif", ".pdb", "_confidence.json", "_pae.npz")
            + ("_predicted_aligned_error.json",)
        }
    )
    summary = summary_of(out)
    assert summary["schema_version"] == 2 and summary["settings"]["seed"]["origin"] == "default"
    names = ("python", "torch", "cuda", "openfold-opt", "numpy", "modelcif", "gemmi")
    assert tuple(summary["versions"]) == names
    assert len(summary["weights"][0]["sha256"]) == 64


@pytest.mark.parametrize("by", ["plddt", "ptm"])
def test_several_weights_are_ranked(run, tmp_path, by):
    names = ["v_ptm", "w_ptm", "x_ptm"]
    run({"a": sequence(0)}, "--rank", by, weights=names)
    predictions = {name: fake_prediction(sequence(0), name) for name in names}
    score = {n: p.ptm if by == "ptm" else p.plddt.mean() for n, p in predictions.items()}
    ranking = sorted(names, key=score.get, reverse=True)
    entry = summary_of(tmp_path / "out")["chains"][0]
    assert [model["weights"] for model in entry["models"]] == ranking
    for rank, name in enumerate(ranking, start=1):
        assert (tmp_path / "out" / f"a_rank_{rank}_{name}.cif").exists()
    best = (tmp_path / "out" / f"a_rank_1_{ranking[0]}.cif").read_bytes()
    assert (tmp_path / "out" / "a.cif").read_bytes() == best


def test_weights_without_a_tm_head_are_named_once(run, tmp_path):
    _, text, _ = run({"a": sequence(0), "b": sequence(1)}, weights=["w"])
    assert text.count("no PAE and no pTM") == 1
    assert summary_of(tmp_path / "out")["chains"][0]["models"][0]["ptm"] is None
    assert not list((tmp_path / "out").glob("*.np?"))


def test_matrices_are_written_on_request(run, tmp_path):
    run({"a": sequence(0)}, "--no-save-pae", "--save-distogram")
    assert [path.name for path in (tmp_path / "out").glob("*.np?")] == ["a_distogram.npy"]


def test_a_directory_of_another_run_is_refused(run, tmp_path):
    assert run({"a": sequence(0)})[0] == 0
    before = times_of(tmp_path / "out")
    code, _, error = run({"a": sequence(0)}, "--seed", 5)
    assert code == 2 and "holds another run: seed was 0 and is 5" in error
    code, _, error = run({"a": sequence(0)}, weights=["v_ptm"])
    assert code == 2 and "SHA-256 of w_ptm" in error and "--overwrite" in error
    assert times_of(tmp_path / "out") == before
    assert run({"a": sequence(0)}, "--seed", 5, "--overwrite")[0] == 0
    assert times_of(tmp_path / "out") != before


def test_results_of_another_run_are_never_reused(run, tmp_path):
    run({"a": sequence(0), "b": sequence(1)})
    run({"a": sequence(0)}, "--seed", 5, "--overwrite")
    assert [entry["name"] for entry in summary_of_all(tmp_path)] == ["a"]
    before = times_of(tmp_path / "out")
    assert run({"a": sequence(0), "b": sequence(1)}, "--seed", 5)[0] == 0
    after = times_of(tmp_path / "out")
    assert after["a.cif"] == before["a.cif"] and after["b.cif"] != before["b.cif"]


def test_other_chains_of_the_same_run_stay_in_the_summary(run, tmp_path):
    run({"a": sequence(0)})
    run({"b": sequence(1)})
    assert [entry["name"] for entry in summary_of_all(tmp_path)] == ["b", "a"]


def test_a_chain_with_the_name_of_another_one_is_refused(run):
    run({"a": sequence(0)})
    code, _, error = run({"a": sequence(1)})
    assert code == 2 and "differs from chain a" in error


def test_a_line_of_progress_says_what_was_used(run):
    _, text, _ = run({"a": sequence(0)})
    assert "1 chain to predict, 20 residues" in text
    assert "[1/1] a: 20 residues, 7 alignment rows, 1 template, " in text
    assert text.splitlines()[-2].endswith("; 2 warnings in a.json")


def test_results_without_templates_are_not_those_of_a_run_with_templates(run, tmp_path):
    run({"a": sequence(0)})
    code, _, error = run({"a": sequence(0)}, "--template-structures", str(tmp_path))
    assert code == 2 and "use_templates was" in error and "--overwrite" in error


def test_files_that_no_run_wrote_are_not_replaced(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.cif").write_text("mine")
    code, _, error = run({"a": sequence(0)})
    assert code == 2 and "a.cif exists and is not the result of a prediction" in error
    assert (tmp_path / "out" / "a.cif").read_text() == "mine"


def test_the_default_date_of_the_templates_is_that_of_the_first_run(run, tmp_path):
    run(ten_chains())
    path = tmp_path / "out" / "summary.json"
    summary = json.loads(path.read_text())
    summary["identity"]["max_template_date"] = "2020-05-14"
    path.write_text(json.dumps(summary))
    _, text, _ = run(ten_chains())
    assert "max_template_date 2020-05-14 (run)" in text
    code, _, error = run(ten_chains(), "--max-template-date", "2021-01-01")
    assert code == 2 and "max_template_date was 2020-05-14 and is 2021-01-01" in error


def test_a_missing_file_makes_a_chain_unfinished(run, tmp_path):
    run({"a": sequence(0), "b": sequence(1)})
    (tmp_path / "out" / "b_pae.npz").unlink()
    _, text, _ = run({"a": sequence(0), "b": sequence(1)})
    assert "[1/1] b:" in text and (tmp_path / "out" / "b_pae.npz").exists()


def test_a_directory_in_use_is_refused(run, tmp_path):
    # A lock of the same process would not conflict, so another process holds it.
    program = (
        "import sys, pathlib; from openfold_opt.predict.output_folder import OutputFolder\n"
        f"folder = OutputFolder(pathlib.Path({str(tmp_path / 'out')!r}))\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        code, _, error = run({"a": sequence(0)})
        assert code == 2 and f"in use by a live run (process {holder.pid}" in error
    finally:
        holder.communicate("")
    assert run({"a": sequence(0)})[0] == 0


@pytest.mark.parametrize("num_files_that_fit", [1, 2, 5])
def test_a_full_disk_ends_the_run_without_half_written_files(
    run, tmp_path, monkeypatch, num_files_that_fit
):
    written = []

    def fsync(_):
        written.append(1)
        if len(written) > num_files_that_fit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    chains = {"a": sequence(0), "b": sequence(1)}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        code, _, error = run(chains)
    out = tmp_path / "out"
    assert code == 1 and "the disk is full" in error and "No space left on device" in error
    assert not list(out.glob("*.tmp"))
    assert run(chains)[0] == 0
    assert len(list(out.glob("*.cif"))) == 2


@pytest.mark.parametrize("device", ["tpu", "h200"])
def test_an_unknown_device_is_refused(run, device):
    code, _, error = run({"a": sequence(0)}, "--device", device)
    assert code == 2 and "expected auto, cpu or cuda" in error


def test_more_ranks_per_chain_than_were_started_are_refused(run):
    code, _, error = run({"a": sequence(0)}, "--dap", 4)
    assert code == 2 and "torchrun --nproc-per-node 4" in error


def test_a_result_is_not_replaced_by_a_failure_of_the_input(run, tmp_path):
    out = tmp_path / "out"
    assert run({"a": sequence(0)})[0] == 0
    before = {path.name: path.read_bytes() for path in out.glob("a*")}
    code, _, error = run({"a": "MK:TA", "b": sequence(1)})
    assert code == 2 and "has the result of chain a" in error and "has a colon" in error
    assert {path.name: path.read_bytes() for path in out.glob("a*")} == before
    code, _, _ = run({"a": "MK:TA", "b": sequence(1)}, "--overwrite")
    assert code == 1 and sorted(path.name for path in out.glob("a*")) == ["a.json"]


def test_an_output_directory_that_cannot_be_created_is_refused(tmp_path, capsys):
    fasta = write_fasta(tmp_path / "in.fasta", {"a": sequence(0)})
    assert predict(fasta, "--weights", "w", "--out", fasta / "sub") == 2
    error = capsys.readouterr().err
    assert f"--out {fasta / 'sub'} cannot be used: Not a directory" in error


def test_a_long_name_is_cut_where_it_is_printed(run, tmp_path):
    code, text, _ = run({"n" * 5000: sequence(0), "b": "MK:TA"})
    assert code == 1 and max(len(line) for line in text.splitlines()) < 1000
    assert summary_of(tmp_path / "out")["chains"][0]["name"] == "n" * 5000


def test_warnings_about_features_are_printed(run):
    _, text, _ = run({"a": sequence(0)})
    assert "warning: a: from the features" in text


def test_only_own_temporary_files_are_removed(run, tmp_path):
    out = tmp_path / "out"
    (out / "c.cif.tmp").mkdir(parents=True)
    for name in ("a.json.tmp", "b.0.pae_rows.tmp", "b.best.structure.tmp", "notes.tmp"):
        (out / name).write_text("text")
    assert run({"a": sequence(0)})[0] == 0
    assert sorted(path.name for path in out.glob("*.tmp")) == ["c.cif.tmp", "notes.tmp"]


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_directory_with_the_name_of_a_result_is_refused(run, tmp_path, options):
    (tmp_path / "out" / "a.json").mkdir(parents=True)
    code, _, error = run({"a": sequence(0)}, *options)
    assert code == 2 and "a.json is a directory" in error


def test_a_full_disk_before_the_first_chain_is_named(run, monkeypatch):
    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    code, _, error = run({"a": sequence(0)})
    assert code == 2 and "the disk is full" in error and "free space" in error


def test_an_output_directory_that_vanishes_is_one_line(run, tmp_path, monkeypatch):
    def structure_text(*_, **__):
        shutil.rmtree(tmp_path / "out")
        return "data_a"

    monkeypatch.setattr("openfold_opt.predict.chain_results.structure_text", structure_text)
    code, _, error = run({"a": sequence(0)})
    assert code == 1 and "No such file or directory" in error and "finished chains stay" in error


def test_a_run_with_templates_is_another_run(run, tmp_path):
    assert run({"a": sequence(0)})[0] == 0
    code, _, error = run({"a": sequence(0)}, "--template-structures", str(tmp_path))
    assert code == 2 and "template_structures was False and is True" in error


def test_an_edited_record_removes_no_files_of_other_directories(run, tmp_path):
    assert run({"a": sequence(0)})[0] == 0
    path, other = tmp_path / "out" / "a.json", tmp_path / "other"
    other.write_text("abc")
    record = json.loads(path.read_text()) | {"file_bytes": {"../other": 3}}
    path.write_text(json.dumps(record))
    assert run({"a": sequence(0)}, "--overwrite")[0] == 0
    assert other.read_text() == "abc"
