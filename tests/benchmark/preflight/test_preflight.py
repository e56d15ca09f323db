"""Every check of preflight passes for correct inputs, and names faults and their fixes."""

import dataclasses
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.__main__ import main
from benchmark.finding import FAIL, PASS, Finding
from benchmark.preflight import job_checks, node_checks
from benchmark.preflight.command import lines_by_host
from benchmark.preflight.job_checks import (
    check_checkpoint,
    check_data,
    check_ranks,
    check_space,
    needed_bytes,
)
from benchmark.preflight.node_checks import (
    Accelerators,
    ExpectedAccelerators,
    check_accelerators,
    check_environment,
    check_output,
    check_shards,
)
from benchmark.preflight.rendezvous import Answer, check_answers, check_bandwidth
from benchmark.presets import build_preset
from data_prep.__main__ import main as data_prep
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.shard_format import sha256_of_file
from tests.support.gloo_ranks import torchrun
from tests.support.synthetic_shards import write_synthetic_shards

ROOT = Path(__file__).resolve().parents[3]
GIB = 2**30


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A verified data set of eight chains."""
    folder = tmp_path_factory.mktemp("preflight")
    raw, out = folder / "raw", folder / "shards"
    write_synthetic_shards(raw, out)
    assert data_prep(["verify", str(out)]) == 0
    return out


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_ranks_that_fit_have_the_batch_in_the_text():
    found = check_ranks(build_preset("mlperf_256x8_dap8"), 2080)
    assert found.passed
    assert (
        found.text
        == "2080 = 256 x dap 8 to train, 32 to evaluate; global batch 256; closed division"
    )


def test_fewer_ranks_keep_the_global_batch_or_are_refused():
    half = check_ranks(build_preset("mlperf_16x8_dap1"), 64)
    assert half.passed and "global batch 128 (accumulation 2, derived)" in half.text
    odd = check_ranks(build_preset("mlperf_16x8_dap1"), 96)
    assert not odd.passed and "global_batch_size=128 is not a multiple of 96" in odd.text
    large = check_ranks(build_preset("mlperf_128x8_dap8"), 2080)
    assert not large.passed and "256 data-parallel ranks" in large.text


def test_ranks_that_do_not_fit():
    found = check_ranks(build_preset("demo_2x2"), 3)
    assert not found.passed and "found 3 ranks" in found.text and "start 2" in found.text


def test_correct_data(shards):
    found = by_name(check_data(build_preset("demo"), shards))
    assert all(finding.passed for finding in found.values())
    assert ShardIndex.load(shards).checksum in found["data index"].text


def test_missing_data(tmp_path):
    found = by_name(check_data(build_preset("demo"), tmp_path / "nowhere"))
    assert not found["data index"].passed and "does not exist" in found["data index"].text


def test_a_distillation_set(shards, tmp_path):
    """The data set itself is no distillation set: it has the validation chains."""
    demo = build_preset("demo")
    selection = dataclasses.replace(demo.selection, distillation_probability=0.75)
    mixture = dataclasses.replace(demo, selection=selection)
    found = by_name(check_data(mixture, shards, shards))["distillation set"]
    assert not found.passed and "validation chain" in found.text
    found = by_name(check_data(mixture, shards))["distillation set"]
    assert not found.passed and "there is no distillation set" in found.text
    found = by_name(check_data(demo, shards, shards))["distillation set"]
    assert not found.passed and "would not be used" in found.text
    found = by_name(check_data(mixture, shards, tmp_path / "nowhere"))["data index"]
    assert not found.passed and "nowhere does not exist" in found.text


def test_data_that_was_never_verified_or_for_another_index(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(job_checks, "verified_checksum", lambda data_dir: None)
    found = by_name(check_data(build_preset("demo"), shards))["data verified"]
    assert (
        not found.passed
        and "was never verified" in found.text
        and f"data_prep verify {shards}" in found.text
    )
    monkeypatch.setattr(job_checks, "verified_checksum", lambda data_dir: "beef")
    assert (
        "another index (beef)"
        in by_name(check_data(build_preset("demo"), shards))["data verified"].text
    )


def test_data_of_another_size_than_the_closed_division_has(shards):
    closed = build_preset("mlperf_fast")
    found = by_name(check_data(closed, shards))["chains"]
    assert not found.passed and "no chain to evaluate" in found.text
    demo_chains = dataclasses.replace(
        build_preset("demo").selection, expected_train_samples=594_595, expected_eval_samples=180
    )
    found = by_name(check_data(dataclasses.replace(closed, selection=demo_chains), shards))[
        "chains"
    ]
    assert not found.passed and "594,595" in found.text


def test_checkpoint(tmp_path):
    closed, open_preset, path = (
        build_preset("mlperf_fast"),
        build_preset("demo"),
        tmp_path / "weights.pt",
    )
    assert check_checkpoint(open_preset, None).passed
    assert "none given, expected the file of sha256 b518be" in check_checkpoint(closed, None).text
    assert "is not a file" in check_checkpoint(open_preset, path).text
    path.write_bytes(b"weights")
    assert check_checkpoint(open_preset, path).passed
    wrong = check_checkpoint(closed, path)
    assert not wrong.passed and sha256_of_file(path) in wrong.text and "b518be" in wrong.text
    right = dataclasses.replace(closed, init_checkpoint_sha256=sha256_of_file(path))
    assert check_checkpoint(right, path).passed


def test_space(tmp_path, monkeypatch):
    demo = build_preset("demo")
    # Four checkpoints of 380,642 parameters, and logs.
    assert needed_bytes(demo, 2) == 2 * (4 * 16 * 380_642 + 64 * 2**20)
    monkeypatch.setattr(
        job_checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * GIB)
    )
    assert check_space(tmp_path, 9 * GIB).passed
    found = check_space(tmp_path, 11 * GIB)
    assert (
        not found.passed
        and "10.0 GiB free" in found.text
        and "need 11.0 GiB" in found.text
        and "LOGDIR" in found.text
    )
    assert "is not a directory" in check_space(tmp_path / "nowhere", 1).text


def test_node_that_lacks_a_shard_or_has_a_short_one(shards, tmp_path):
    assert check_shards(shards).passed
    for path in shards.glob("*.h5"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = sorted(tmp_path.glob("alignments*.h5"))[0]
    os.truncate(shard, 100)
    assert f"{shard} has 100 bytes" in check_shards(tmp_path).text
    shard.unlink()
    found = check_shards(tmp_path)
    assert not found.passed and f"{shard} is missing" in found.text


def test_output(tmp_path):
    assert check_output(tmp_path).passed and not list(tmp_path.iterdir())
    found = check_output(tmp_path / "nowhere")
    assert not found.passed and "cannot write into" in found.text


def test_environment(monkeypatch):
    assert check_environment(build_preset("demo")).passed
    versions = dict.fromkeys(
        ("python", "torch", "numpy", "h5py", "numba", "mlperf-logging", "triton", "cuda", "commit"),
        "1",
    )
    monkeypatch.setattr(
        node_checks, "describe_versions", lambda: versions | {"triton": "not installed"}
    )
    monkeypatch.setattr(node_checks.importlib.util, "find_spec", lambda name: None)
    assert check_environment(build_preset("demo")).passed
    found = check_environment(build_preset("mlperf_fast"))
    assert not found.passed and "triton not installed" in found.text


def gpus(names: list[str], *, memory_gib: float = 79.6, free: float = 0.99) -> Accelerators:
    memory = int(memory_gib * GIB)
    return Accelerators(
        names=tuple(names),
        memory_bytes=(memory,) * len(names),
        free_bytes=(int(free * memory),) * len(names),
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (gpus(["NVIDIA H100"] * 7), "found 7 NVIDIA H100, expected 8 of H100"),
        (Accelerators(), "found none, expected 8"),
        (gpus(["NVIDIA H100"] * 7 + ["NVIDIA A100"]), "7 NVIDIA H100, 1 NVIDIA A100"),
        (gpus(["NVIDIA H100"] * 8, memory_gib=40), "40.0 GiB, expected"),
        (gpus(["NVIDIA H100"] * 8, free=0.5), "in use by other processes"),
    ],
)
def test_gpus_that_are_not_as_expected(found, words):
    result = check_accelerators(
        found, ExpectedAccelerators(count=8, name="H100", memory_gib=79), device="cuda"
    )
    assert not result.passed and words in result.text and "drain it" in result.text


def test_gpus_that_are_as_expected():
    expected = ExpectedAccelerators(count=8, name="H100", memory_gib=79)
    assert check_accelerators(gpus(["NVIDIA H100 80GB HBM3"] * 8), expected, device="cuda").passed
    assert check_accelerators(Accelerators(), ExpectedAccelerators(count=0), device="auto").passed
    assert not check_accelerators(
        Accelerators(), ExpectedAccelerators(count=0), device="cuda"
    ).passed


def test_ranks_that_do_not_answer():
    launch = LaunchInfo(world_size=8, ranks_per_node=2)
    found = {rank: Answer(host=f"node{rank // 2}") for rank in range(8)}
    assert check_answers(found, launch).passed
    del found[4], found[5]
    result = check_answers(found, launch)
    assert not result.passed and "ranks 4, 5 did not answer (nodes number 2" in result.text


def test_bandwidth():
    assert check_bandwidth(20.0, 15.0, backend="nccl").passed
    found = check_bandwidth(1.25, 15.0, backend="nccl")
    assert not found.passed and "1.25 GB/s" in found.text and "at least 15 expected" in found.text


def test_lines_name_nodes_only_if_they_differ():
    good = Finding(state=PASS, subject="GPUs", text="8")
    bad = Finding(state=FAIL, subject="GPUs", text="7")
    assert lines_by_host({"a": [good], "b": [good]}) == ["PASS GPUs: 8"]
    assert lines_by_host({"a": [good], "b": [bad]}) == ["PASS GPUs [a]: 8", "FAIL GPUs [b]: 7"]


def test_one_process_checks_everything(shards, tmp_path, capsys):
    arguments = [
        "preflight",
        "--preset",
        "demo",
        "--data-dir",
        str(shards),
        "--output-dir",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "FAIL" not in shown and "all checks passed" in shown
    predicted = ["--predicted-run-seconds", "900", "--runs", "8", "--rounds", "4"]
    capsys.readouterr()
    assert main([*arguments, "--time-limit", "60", *predicted]) == 0
    warning = "NOTE time limit: WARNING: the limit of the job is 1:00:00; 4 runs are predicted"
    assert warning in capsys.readouterr().out
    assert main([*arguments, "--time-limit", "60"]) == 0
    assert "the time of a run is not predicted: no GPU in a node" in capsys.readouterr().out
    assert main([*arguments, "--time-limit", "soon"]) == 2
    assert "expected a format of sbatch --time" in capsys.readouterr().err
    assert main([*arguments, "--gpus-per-node", "4"]) == 1
    assert "FAIL GPUs: found none, expected 4" in capsys.readouterr().out


def test_two_ranks_detect_a_slow_network(shards, tmp_path):
    command = [*torchrun(2), "-m", "benchmark", "preflight"]
    arguments = [
        "--preset",
        "demo_dap2",
        "--data-dir",
        str(shards),
        "--output-dir",
        str(tmp_path),
        "--min-all-reduce-gb-s",
        "1e6",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    shown = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert shown.returncode == 1
    assert "FAIL all-reduce" in shown.stdout and "PASS answers: all 2 ranks" in shown.stdout, (
        shown.stdout + shown.stderr
    )
    assert shown.stdout.count("PASS environment") == 1


def test_an_answer_is_restored_from_json():
    finding = Finding(state=FAIL, subject="GPUs", text="none")
    answer = Answer(host="node0", findings=(finding,))
    assert Answer.from_json(answer.to_json()) == answer
