"""`perf step`: times on a small preset, ratios to the reference, refused options, batches."""

import gzip
import json
import sys

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf import step
from benchmark.perf.step import SideTimes, StepMetrics, report
from benchmark.perf.subprocesses import step_probe
from benchmark.perf.subprocesses.reference_step import read_batch
from benchmark.perf.tools.module_times import range_name
from benchmark.perf.tools.perf_record import to_json
from openfold_opt.train.synthetic_features import synthetic_batch


def test_our_step_is_timed(tmp_path, capsys):
    record = tmp_path / "step.json"
    options = [
        "--preset",
        "demo",
        "--passes",
        "0",
        "1",
        "--repeats",
        "2",
        "--rounds",
        "1",
        "--json",
        str(record),
    ]
    assert main(["perf", "step", *options]) == 0
    text = capsys.readouterr().out
    assert (
        "step of demo with auto kernels (which are " in text
        and "0 ours" in text
        and "1 ours" in text
    )
    passes = json.loads(record.read_text())["figures"]["passes"]
    assert [len(passes[k]["ours"]["seconds"]) for k in ("0", "1")] == [2, 2]
    assert passes["0"]["ours"]["peak_memory_bytes"][0] > 10**8


class EagerRecorder:
    """A recorder of graphs that needs no GPU: a replay runs the recorded work again."""

    def __init__(self, device):
        self.device, self.num_captures = device, 0

    def warm_up_run(self, work):
        work()

    def record(self, work):
        self.num_captures += 1
        return EagerCapture(work)


class EagerCapture:
    def __init__(self, work):
        self.replay = work

    def reset(self):
        pass


def test_the_step_is_timed_with_graphs(tmp_path, monkeypatch, capsys):
    """The path that a GPU takes: warm-up run, capture, timed replays."""
    recorders = []

    def recorder(device):
        recorders.append(EagerRecorder(device))
        return recorders[-1]

    monkeypatch.setattr(step_probe, "CudaRecorder", recorder)
    monkeypatch.setattr(step_probe, "resolve_device", lambda *_, **__: torch.device("cpu"))
    config = step_probe.build_preset("demo")
    features = synthetic_batch(config.data, batch_size=config.local_batch_size, num_passes=1)
    np.savez(tmp_path / "features.npz", **{k: v.numpy() for k, v in features.items()})
    settings = step_probe.StepSettings(
        preset="demo",
        kernels="reference",
        precision="fp32",
        graphs=True,
        passes=0,
        repeats=1,
        threads=1,
        features=str(tmp_path / "features.npz"),
        modules=False,
        trace=None,
    )
    monkeypatch.setattr(sys, "argv", ["step_probe", json.dumps(to_json(settings))])
    step_probe.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["graphs"] and len(result["seconds"]) == 1
    assert len(recorders) == 1 and recorders[0].num_captures > 0


def test_ratios_to_the_reference_are_reported():
    sides = {
        "ours": SideTimes(seconds=[1.0, 2.0, 3.0], peak_memory_bytes=[2**30]),
        "reference": SideTimes(seconds=[4.0, 4.0, 4.0], peak_memory_bytes=[2**31]),
    }
    metrics = StepMetrics(
        preset="middle",
        kernels="reference",
        precision="fp32",
        threads=1,
        passes={"0": sides},
        flops={"0": 4 * 10**12},
        matmul_flops_per_second=8e12,
    )
    text = report(metrics)
    assert "2.00   " in text and "25%" in text
    assert "0.50 (0.25 to 0.75)" in text and text.splitlines()[-1].endswith("0.50")


def test_invalid_options_are_refused(tmp_path, capsys):
    assert main(["perf", "step", "--repeats", "0"]) == 2
    assert "must be at least 1" in capsys.readouterr().err
    assert main(["perf", "step", "--reference", str(tmp_path)]) == 2
    assert "has no scripts/preprocess_pdb_mmcif.py" in capsys.readouterr().err


def test_zero_rounds_need_a_profile_option(capsys):
    assert main(["perf", "step", "--preset", "demo", "--rounds", "0"]) == 2
    assert "--rounds 0" in capsys.readouterr().err


def test_a_preset_for_a_gpu_is_refused_without_one(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["perf", "step", "--preset", "mlperf_fast"]) == 2
    assert "needs a GPU" in capsys.readouterr().err


def test_results_are_kept_when_a_number_of_iterations_fails(tmp_path, monkeypatch, capsys):
    def probe(module, settings, *, name):
        for number in range(settings.repeats):
            if settings.passes == 0 and number == 1:
                raise BenchmarkError("operation not permitted when stream is capturing")
            seconds = [0.5] * (number + 1)
            yield {"seconds": seconds, "losses": [], "peak_memory_bytes": 2**30, "graphs": False}

    monkeypatch.setattr(step, "run_probe", probe)
    monkeypatch.setattr(step, "measure_matmul", lambda *args, **options: 1e12)
    record = tmp_path / "step.json"
    options = ["--passes", "0", "1", "--repeats", "2", "--rounds", "1", "--json", str(record)]
    assert main(["perf", "step", "--preset", "demo", *options]) == 1
    shown = capsys.readouterr()
    expected = "FAILED: 0 recycling iterations, ours: operation not permitted"
    assert expected in shown.err and "1 ours" in shown.out
    metrics = json.loads(record.read_text())["figures"]
    assert metrics["passes"]["0"]["ours"]["seconds"] == [0.5]
    assert metrics["passes"]["1"]["ours"]["seconds"] == [0.5, 0.5]
    assert len(metrics["failures"]) == 1


def test_batches_of_the_reference_have_the_dim_of_passes_last(tmp_path):
    arrays = {"aatype": np.arange(6).reshape(2, 3), "msa_mask": np.arange(24.0).reshape(2, 2, 3, 2)}
    np.savez(tmp_path / "features.npz", **arrays)
    batch = read_batch(tmp_path / "features.npz", per_pass=["msa_mask"], num_passes=2)
    assert batch["aatype"].shape == (2, 3, 2) and torch.equal(
        batch["aatype"][..., 1], torch.from_numpy(arrays["aatype"])
    )
    assert torch.equal(batch["msa_mask"][..., 1], torch.from_numpy(arrays["msa_mask"][:, 1]))


def test_a_step_is_profiled_by_module(tmp_path, capsys):
    picture, trace, record = (
        tmp_path / "modules.png",
        tmp_path / "trace.json.gz",
        tmp_path / "step.json",
    )
    options = [
        "--preset",
        "demo",
        "--repeats",
        "1",
        "--rounds",
        "1",
        "--kernels",
        "reference",
        "--json",
        str(record),
    ]
    assert main(["perf", "step", *options, "--picture", str(picture), "--trace", str(trace)]) == 0
    text = capsys.readouterr().out
    assert "evoformer_stack.core.tri_att_start" in text and "of matmul" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    names = {
        event["name"]
        for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
        if "name" in event
    }
    assert {
        "evoformer_stack.core.tri_att_start forward",
        "evoformer_stack.core.tri_att_start backward",
    } <= names
    modules = json.loads(record.read_text())["figures"]["profile"]["modules"]
    for name in (
        "evoformer_stack.core.pair_transition",
        "extra_msa_stack.msa_att_row",
        "structure_module.ipa",
    ):
        assert modules[name]["forward"] > 0.0 and modules[name]["backward"] > 0.0


def test_range_names_are_module_names_without_block_numbers():
    assert (
        range_name("evoformer_stack.blocks.3.core.tri_mul_in") == "evoformer_stack.core.tri_mul_in"
    )
    assert (
        range_name("evoformer_stack.blocks.3") is None
        and range_name("evoformer_stack.blocks") is None
    )
    assert range_name("") is None and range_name("a.b.c.d.e") is None
