"""Roofline of a step: arithmetic on hand-made launches, classes, and the options of the command."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.launch_trace import Launch
from benchmark.perf.tools.roofline import (
    EFFICIENCIES,
    Efficiency,
    KernelCode,
    RooflineModel,
    Work,
    add_iterations,
    classify,
    extrapolate,
    floor_seconds,
    read_efficiencies,
)
from openfold_opt.kernels.chips import SustainedRates, chip_named

H200 = chip_named("h200")
RATES = SustainedRates(bytes_per_second=1e9, matmul_flops_per_second=1e12, launch_seconds=1e-6)


def launch(**values):
    """Return a launch of a Triton kernel with 200 programs and no matrix product."""
    fields = {
        "kernel": "gate.kernel",
        "signature": "bfloat16",
        "module": "m",
        "direction": "forward",
        "bytes": 1000,
        "flops": 0,
        "programs": 200,
    }
    return Launch(**(fields | values))


def code(*, wgmma=0, mma=0, fma=0):
    return KernelCode(registers=32, shared_bytes=0, spills=0, wgmma=wgmma, mma=mma, fma=fma)


def test_the_floor_is_the_larger_of_both_times_plus_the_launch():
    assert floor_seconds(launch(bytes=5000), RATES) == pytest.approx(5e-6 + 1e-6)
    both = launch(bytes=5000, flops=8_000_000)
    assert floor_seconds(both, RATES) == pytest.approx(8e-6 + 1e-6)


def test_the_estimate_divides_each_rate_by_the_share_of_the_class():
    efficiencies = dict(EFFICIENCIES) | {"mma": Efficiency(memory=0.5, matrix=0.25)}
    model = RooflineModel(
        rates=RATES,
        chip=H200,
        efficiencies=efficiencies,
        code={("gate.kernel", "bfloat16"): code(mma=4)},
    )
    work = model.work(launch(bytes=5000, flops=1_000_000))
    assert work.floor_seconds == pytest.approx(6e-6)
    assert work.estimate_seconds == pytest.approx(11e-6)
    work = model.work(launch(bytes=5000, flops=4_000_000))
    assert work.floor_seconds == pytest.approx(6e-6)
    assert work.estimate_seconds == pytest.approx(17e-6)


def test_programs_on_a_quarter_of_the_multiprocessors_reach_a_quarter_of_the_rates():
    efficiencies = dict(EFFICIENCIES) | {"memory": Efficiency(memory=0.5, matrix=1.0)}
    model = RooflineModel(rates=RATES, chip=H200, efficiencies=efficiencies, code={})
    work = model.work(launch(bytes=5000, programs=33))
    assert work.floor_seconds == pytest.approx(5e-6 + 1e-6)
    assert work.estimate_seconds == pytest.approx(4 * 10e-6 + 1e-6)


def test_without_machine_code_there_is_a_floor_and_no_estimate():
    model = RooflineModel(rates=RATES, chip=H200, efficiencies=EFFICIENCIES, code=None)
    work = model.work(launch(flops=10**6))
    assert work.floor_seconds > 0 and work.estimate_seconds == 0


@pytest.mark.parametrize(
    ("values", "instructions", "expected"),
    [
        ({"flops": 1}, {"wgmma": 3, "fma": 9}, "wgmma"),
        ({"flops": 1}, {"wgmma": 3, "mma": 1}, "mma"),
        ({"flops": 1}, {"mma": 1, "fma": 9}, "mma"),
        ({"flops": 1}, {"fma": 9}, "fma"),
        ({}, {"fma": 9}, "memory"),
        ({"programs": 131}, {}, "memory"),
        ({"flops": 1, "programs": 131}, {"wgmma": 3}, "few_programs"),
        ({"flops": 1, "programs": 132}, {"wgmma": 3}, "wgmma"),
    ],
)
def test_classes_of_triton_kernels(values, instructions, expected):
    assert classify(launch(**values), code(**instructions), H200) == expected


def test_before_hopper_mma_is_the_fastest_instruction():
    a100 = chip_named("a100-80")
    assert classify(launch(flops=1), code(mma=1), a100) == "mma_sm8x"


def test_classes_of_pytorch_operators():
    operator = {"kernel": "aten::mm", "signature": None, "programs": None}
    assert classify(launch(**operator), None, H200) == "pytorch"
    assert classify(launch(**operator, flops=1), None, H200) == "cublas"
    assert classify(launch(**operator, flops=1, is_float32=True), None, H200) == "cublas_float32"


def test_a_kernel_that_was_not_compiled_is_an_error():
    with pytest.raises(ValueError, match=r"gate\.kernel \(bfloat16\) was not compiled"):
        classify(launch(flops=1), None, H200)


def test_every_further_block_and_iteration_adds_the_same():
    one, two = {("a",): Work(launches=10, bytes=100)}, {("a",): Work(launches=13, bytes=150)}
    blocks = extrapolate(one, two | {("b",): Work(launches=1)}, 4)
    assert blocks == {("a",): Work(launches=22, bytes=300), ("b",): Work(launches=4)}
    steps = add_iterations(one, two, 1.5)
    assert steps == {("a",): Work(launches=14.5, bytes=175)}


def test_measured_efficiencies_replace_the_table(tmp_path):
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({name: {"memory": 0.9, "matrix": 0.4} for name in EFFICIENCIES}))
    assert read_efficiencies(path)["mma"] == Efficiency(memory=0.9, matrix=0.4)


COMPLETE = {name: {"memory": 0.9, "matrix": 0.4} for name in EFFICIENCIES}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "found list"),
        ('{"mma": {"memory": 0.9, "matrix": 0.4}}', r"found \['mma'\]"),
        (json.dumps(COMPLETE | {"mma": {"memory": 0.9}}), r"found \['memory'\]"),
        (json.dumps(COMPLETE | {"mma": {"memory": 0, "matrix": 1}}), "expected numbers > 0"),
        (json.dumps(COMPLETE | {"mma": {"memory": "fast", "matrix": 1}}), "must be real number"),
    ],
)
def test_a_bad_file_of_efficiencies_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match=message) as error:
        read_efficiencies(path)
    assert "expected a JSON object such as" in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="No such file"):
        read_efficiencies(tmp_path / "absent.json")


def test_an_unknown_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["perf", "counts", "--roofline", "--device", "v100"])
    assert "invalid choice: 'v100'" in capsys.readouterr().err


def test_a_gpu_without_enough_memory_is_refused(capsys):
    assert main(["perf", "counts", "--roofline", "--device", "a40"]) != 0
    assert "a40 has" in capsys.readouterr().err
