"""What the command leaves: files of each kind, records, changed alignments, refused runs."""

import json
import os
from pathlib import Path

import gemmi
import numpy as np
import pytest

from openfold_opt.predict import chain_results
from openfold_opt.predict.output_folder import OutputFolder
from tests.support.fake_prediction import fake_prediction, sequence, times_of


def content_of(path: Path):
    return json.loads(path.read_text())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_confidences_are_written_as_the_database_does(run, tmp_path):
    run({"a": sequence(0)})
    expected = fake_prediction(sequence(0), "w_ptm")
    confidence = content_of(tmp_path / "out" / "a_confidence.json")
    assert list(confidence) == ["residueNumber", "confidenceScore", "confidenceCategory"]
    assert confidence["confidenceScore"] == pytest.approx(expected.plddt, abs=0.006)
    (pae,) = content_of(tmp_path / "out" / "a_predicted_aligned_error.json")
    assert list(pae) == ["predicted_aligned_error", "max_predicted_aligned_error"]
    assert pae["predicted_aligned_error"] == [[12.2] * 20] * 20
    assert pae["max_predicted_aligned_error"] == 31.75
    atoms = gemmi.read_structure(str(tmp_path / "out" / "a.pdb"))[0].count_atom_sites()
    assert atoms == expected.atom_mask.sum()


@pytest.mark.parametrize(
    ("options", "has_json"), [((), True), (("--no-pae-json",), False), (("--no-save-pae",), False)]
)
def test_the_json_of_aligned_errors_is_an_option(run, tmp_path, options, has_json):
    run({"a": sequence(0)}, *options)
    assert (tmp_path / "out" / "a_predicted_aligned_error.json").exists() is has_json
    assert (tmp_path / "out" / "a_pae.npz").exists() is ("--no-save-pae" not in options)


def test_embeddings_are_written_on_request(run, tmp_path):
    run({"a": sequence(0)}, "--save-embeddings")
    record = content_of(tmp_path / "out" / "a.json")
    files = record["models"][0]["files"]
    assert (files["single"], files["pair"]) == ("a_single.npy", "a_pair.npy")
    single, pair = (np.load(tmp_path / "out" / files[kind]) for kind in ("single", "pair"))
    assert (single.shape, pair.shape) == ((20, 6), (20, 20, 8))
    assert single.dtype == pair.dtype == np.float16


def test_a_structure_that_is_no_pdb_file_is_explained_once(run, tmp_path, monkeypatch):
    reason = "no PDB file: too long"
    monkeypatch.setattr(chain_results, "pdb_problem", lambda structure: reason)
    _, text, _ = run({"a": sequence(0)}, weights=("v_ptm", "w_ptm"))
    assert text.count(reason) == 1 and not list((tmp_path / "out").glob("*.pdb"))
    record = content_of(tmp_path / "out" / "a.json")
    assert record["warnings"] == ["from input", "from the features", reason]


def test_files_of_several_weights(run, tmp_path):
    run({"a": sequence(0)}, weights=("v_ptm", "w"))
    out = tmp_path / "out"
    record = content_of(out / "a.json")
    first, second = record["models"]
    for model in (first, second):
        kinds = {"structure", "pdb", "confidence"}
        has_pae = model["weights"] == "v_ptm"
        assert set(model["files"]) == kinds | ({"pae", "pae_json"} if has_pae else set())
    for name in ("a.cif", "a.pdb"):
        best = out / name.replace("a", f"a_rank_1_{first['weights']}", 1)
        assert (out / name).read_bytes() == best.read_bytes()
    others = {"a.json", "summary.json", "run.lock"}
    assert names_in(out) == set(record["file_bytes"]) | others


def test_records_and_summary_have_seed_plan_and_ranking(run, tmp_path):
    run({"a": sequence(0), "b": sequence(1), "bad": "WWNAN"}, "--seed", 7)
    records = [content_of(tmp_path / "out" / f"{name}.json") for name in ("a", "b", "bad")]
    assert [record["seed"] for record in records] == [7, 7, 7]
    assert records[0]["models"][0]["planned_peak_bytes"] == 2**30
    summary = content_of(tmp_path / "out" / "summary.json")
    best = sorted(records[:2], key=lambda record: -record["models"][0]["mean_plddt"])
    assert summary["ranking"] == [
        {
            "name": record["name"],
            "mean_plddt": record["models"][0]["mean_plddt"],
            "weights": ["w_ptm"],
        }
        for record in best
    ]
    assert "plddt" not in summary["chains"][0]["models"][0]
    assert "software_parameter" in (tmp_path / "out" / "a.cif").read_text()


def test_a_chain_whose_alignment_has_changed_is_predicted_again(run, tmp_path):
    chains = {"a": f"{sequence(0)}\nfirst", "b": f"{sequence(1)}\nsecond"}
    run(chains)
    before = times_of(tmp_path / "out")
    code, text, _ = run(chains)
    assert code == 0 and "nothing to predict" in text
    code, text, _ = run(chains | {"b": f"{sequence(1)}\nother"})
    assert code == 0 and "b is predicted again: its alignments have changed" in text
    after = times_of(tmp_path / "out")
    assert after["a.cif"] == before["a.cif"] and after["b.cif"] != before["b.cif"]
    assert content_of(tmp_path / "out" / "b.json")["input_hash"] == "hash of other"


def test_a_chain_whose_name_is_a_file_of_another_chain(run, tmp_path):
    names = ["x", "x_confidence", "x|confidence", "report", "../x y"]
    assert run({name.replace(" ", "~"): sequence(i) for i, name in enumerate(names)})[0] == 0
    records = [content_of(path) for path in (tmp_path / "out").glob("*.json")]
    records = [r for r in records if isinstance(r, dict) and "stem" in r]
    assert {record["stem"] for record in records} == {
        "x",
        "x_confidence_2",
        "x_confidence_3",
        "report_2",
        "x_y",
    }
    listed = [name for record in records for name in record["file_bytes"]]
    assert len(listed) == len(set(listed)) == 5 * len(names)


def test_a_record_of_another_version_is_refused(run, tmp_path):
    run({"a": sequence(0)})
    path = tmp_path / "out" / "a.json"
    old = content_of(path) | {"schema_version": 1, "file_bytes": {"a_pae.npy": 3}}
    path.write_text(json.dumps(old))
    (tmp_path / "out" / "a_pae.npy").write_text("old")
    code, _, error = run({"a": sequence(0)})
    assert code == 2 and "a.json has the schema version 1" in error and "--overwrite" in error
    assert run({"a": sequence(0)}, "--overwrite")[0] == 0
    assert not (tmp_path / "out" / "a_pae.npy").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_refused_run_leaves_no_directory_and_no_lock(run, tmp_path, exists):
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    assert run({"a": "MK:TA"})[0] == 2
    assert not list(out.iterdir()) if exists else not out.exists()


def test_new_parents_of_a_refused_run_are_removed_and_old_ones_stay(tmp_path):
    (tmp_path / "old" / "full").mkdir(parents=True)
    OutputFolder(tmp_path / "old" / "new" / "out").close()
    assert names_in(tmp_path / "old") == {"full"}
    folder = OutputFolder(tmp_path / "old" / "new" / "out")
    (tmp_path / "old" / "new" / "out" / "a.cif").write_text("x")
    folder.close()
    assert names_in(tmp_path / "old" / "new" / "out") == {"a.cif", "run.lock"}


def test_a_directory_that_cannot_be_written_is_refused(run, tmp_path, monkeypatch):
    run({"a": sequence(0)})

    def take_lock(path, *, name):
        # The tests may run as root, for whom every directory can be written.
        raise PermissionError(13, os.strerror(13), str(path / "run.lock"))

    monkeypatch.setattr("openfold_opt.predict.output_folder.take_lock", take_lock)
    code, _, error = run({"a": sequence(0)})
    assert code == 2 and "cannot be used: Permission denied" in error and "run.lock" in error
    assert (tmp_path / "out" / "a.cif").exists()
