"""`perf tune` with a synthetic timer, and the use of its file."""

from types import ModuleType

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
    is_attention = "attention.normalized_forward" in kernel.fn.__module__
    if not is_attention:
        return 1.0 if options.get("num_stages", 3) == 3 else 0.99
    return 2.0 / options["num_stages"]


def test_faster_options_are_chosen_and_noise_is_ignored(launches):
    tuned = tune(launches, synthetic_timer, key_of=tuned_options.launch_key)
    assert len({entry.key for entry in tuned}) > 20
    assert len({(entry.key, entry.programs) for entry in tuned}) == len(tuned)
    for entry in tuned:
        if entry.key.startswith("attention.normalized_forward."):
            assert entry.options["num_stages"] == 4 and entry.chosen == pytest.approx(
                entry.written / 4
            )
        else:
            assert entry.options == {} and entry.chosen == entry.written
    metrics = metrics_of(tuned)
    assert "default" in report(metrics) and "num_stages" in report(metrics)
    assert headline(metrics).startswith("demo bf16 on NVIDIA H200: kernels of a step at DAP 1, 8 ")


def test_a_kernel_that_cannot_run_is_an_error(launches):
    with pytest.raises(BenchmarkError, match="perf resources"):
        tune(launches, lambda *launch: None, key_of=tuned_options.launch_key)


def metrics_of(tuned):
    return TuneMetrics(
        chip="NVIDIA H200",
        preset="demo",
        precision="bf16",
        file="x.py",
        dap=[1, 8],
        launches=tuned,
    )


def test_the_options_of_the_file_are_used_by_the_size_of_the_launch(launches, monkeypatch):
    kernel, _, arguments, options = launches[0]
    key = tuned_options.launch_key(kernel, arguments, options)
    times = {"written": 2.0, "chosen": 1.0}
    tuned = [
        TunedLaunch(key=key, programs=64, options={"num_warps": 2, "num_stages": 4}, **times),
        TunedLaunch(key=key, programs=512, options={}, **times),
        TunedLaunch(key="other", programs=1, options={}, **times),
    ]
    file = ModuleType("openfold_opt.kernels.triton.tuning.h200")
    exec(format_file(metrics_of(tuned)), vars(file))
    assert file.CHIP == "NVIDIA H200"
    assert file.OPTIONS == {key: {64: {"num_warps": 2, "num_stages": 4}, 512: {}}}
    assert (
        "tuning.h200, measured on 20" in tuned_options.table_of(file).source
        and "with the shapes of demo in bf16 at DAP 1, 8" in tuned_options.table_of(file).source
    )
    monkeypatch.setattr(tuned_options, "active_options", lambda: file.OPTIONS)
    for grid in ((64,), (8, 4, 2), (1,), (170,)):
        changed = tuned_options.tuned(kernel, grid, arguments, options)
        assert changed == options | {"num_warps": 2, "num_stages": 4}
    for grid in ((512,), (10_000,), (190,)):
        assert tuned_options.tuned(kernel, grid, arguments, options) == options
    others = tuple(x.double() if isinstance(x, torch.Tensor) else x for x in arguments)
    assert tuned_options.tuned(kernel, (64,), others, options) == options


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
        "active_options",
        lambda: {
            tuned_options.launch_key(k, a, o): {1: {"num_warps": 16}} for k, _, a, o in launches
        },
    )
    repeated = step_launches(
        MetaStep.build(build_preset("demo"), kernels="triton", precision="bf16")
    )
    assert [options for *_, options in repeated] == [options for *_, options in launches]
