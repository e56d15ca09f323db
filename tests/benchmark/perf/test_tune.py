"""`perf tune` with a synthetic timer, and the use of its file."""

import pytest
import torch

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf.resources import step_launches
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tune import (
    TunedLaunch,
    TuneMetrics,
    format_file,
    headline,
    materialize,
    report,
    tune,
)
from benchmark.presets import build_preset
from openfold_opt.kernels.triton.tuning import tuned_options


@pytest.fixture(scope="module")
def launches():
    return step_launches(MetaStep.build(build_preset("demo"), kernels="triton", precision="bf16"))


def synthetic_timer(kernel, grid, arguments, options):
    """Return times in which four stages are best for attention only; 16 warps do not fit."""
    if options["num_warps"] == 16:
        return None
    is_attention = "attention.forward" in kernel.fn.__module__
    if not is_attention:
        return 1.0 if options.get("num_stages", 3) == 3 else 0.99
    return 2.0 / options.get("num_stages", 2)


def test_faster_options_are_chosen_and_noise_is_ignored(launches):
    tuned = tune(launches, synthetic_timer, key_of=tuned_options.launch_key)
    assert len(tuned) > 20
    for key, entry in tuned.items():
        if key.startswith("attention.forward."):
            assert entry.options["num_stages"] == 4 and entry.chosen == pytest.approx(
                entry.written / 2
            )
        else:
            assert entry.options == {} and entry.chosen == entry.written
    metrics = TuneMetrics(chip="X", preset="demo", precision="bf16", file="x.py", launches=tuned)
    assert "default" in report(metrics) and "num_stages" in report(metrics)
    assert headline(metrics).startswith("demo bf16 on X: kernels of a step take ")


def test_a_kernel_that_cannot_run_is_an_error(launches):
    with pytest.raises(BenchmarkError, match="perf resources"):
        tune(launches, lambda *launch: None, key_of=tuned_options.launch_key)


def test_the_options_of_the_file_are_used(launches, monkeypatch):
    kernel, _, arguments, options = launches[0]
    key = tuned_options.launch_key(kernel, arguments, options)
    tuned = {
        key: TunedLaunch(written=2.0, chosen=1.0, options={"num_warps": 2, "num_stages": 4}),
        "other": TunedLaunch(written=1.0, chosen=1.0, options={}),
    }
    namespace = {}
    exec(
        format_file(tuned, chip="NVIDIA H200", preset="demo", precision="bf16"), namespace
    )  # the file is Python
    assert namespace["CHIP"] == "NVIDIA H200" and namespace["OPTIONS"] == {
        key: {"num_warps": 2, "num_stages": 4}
    }
    monkeypatch.setattr(tuned_options, "active_table", lambda: namespace["OPTIONS"])
    changed = tuned_options.tuned(kernel, arguments, options)
    assert changed["num_warps"] == 2 and changed["num_stages"] == 4
    assert {name: value for name, value in changed.items() if name not in tuned_options.TUNED} == {
        name: value for name, value in options.items() if name not in tuned_options.TUNED
    }
    others = tuple(x.double() if isinstance(x, torch.Tensor) else x for x in arguments)
    assert tuned_options.tuned(kernel, others, options) == options


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("Unknown", None),
    ],
)
def test_file_names_of_gpus(device, name):
    assert tuned_options.file_name(device) == name


def test_an_unknown_gpu_is_reported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Z999")
    assert tuned_options.table_for("NVIDIA Z999") is None
    assert "no tuning data for NVIDIA Z999, using safe launch options" in tuned_options.describe(
        torch.device("cuda")
    )


def test_tuning_needs_a_gpu(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["perf", "tune"]) == 2
    assert "PyTorch finds none" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64])
def test_materialized_tensors_have_the_strides_of_the_launch(dtype):
    empty = {"dtype": dtype, "device": "meta"}
    for x in (
        torch.empty(4, 1, 3, **empty).expand(4, 5, 3),
        torch.empty(3, 4, **empty).t(),
        torch.empty((), **empty),
    ):
        real = materialize(x, "cpu")
        assert (real.shape, real.stride(), real.dtype) == (x.shape, x.stride(), dtype)


def test_recorded_launches_have_the_default_options(launches, monkeypatch):
    monkeypatch.setattr(
        tuned_options,
        "active_table",
        lambda: {tuned_options.launch_key(k, a, o): {"num_warps": 16} for k, _, a, o in launches},
    )
    repeated = step_launches(
        MetaStep.build(build_preset("demo"), kernels="triton", precision="bf16")
    )
    assert [options for *_, options in repeated] == [options for *_, options in launches]
