"""The stored counts: shapes and DAP sizes of the presets, sums, and how launches are grouped."""

import json
import math
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.launch_trace import Launch, Trace
from benchmark.plan.counts_command import _collectives, _groups, read_classes
from benchmark.plan.fitting import BENCHMARK_SHAPE
from benchmark.plan.step_counts import NVIDIA, PROJECT, STORED, read_table, shape_name
from benchmark.presets import build_preset

ROOT = Path(__file__).resolve().parents[3]
RECORD = ROOT / "results" / "measured" / "roofline_mlperf_reference_h200.json"


@pytest.mark.parametrize("step", read_table().steps, ids=lambda step: f"{step.code} {step.dap}")
def test_stored_groups_are_positive(step):
    assert step.num_parameters == 93_229_082
    assert all(min(x.bytes, x.flops, x.gradient, x.iteration) >= 0 for x in step.launches)
    assert bool(step.collectives) == (step.dap > 1)


def test_dap_divides_the_operations():
    table = read_table()
    for code, shape in {(step.code, step.shape) for step in table.steps if step.dap > 1}:
        sizes = table.dap_sizes(code=code, shape=shape)
        one, many = (table.find(code=code, shape=shape, dap=dap) for dap in (1, max(sizes)))
        # Of an iteration, because a pass with gradient may recompute blocks on one rank alone.
        ratio = one.total_flops[1] / many.total_flops[1]
        assert 0.9 * many.dap < ratio <= many.dap


def test_the_step_of_this_project_is_that_of_the_roofline():
    step = read_table().find(code=PROJECT, shape=BENCHMARK_SHAPE, dap=1)
    steps = json.loads(RECORD.read_text())["figures"]["roofline"]["steps"]
    for number in (0, 3):
        for name, tolerance in (("bytes", 0.05), ("flops", 1e-3), ("launches", 1e-3)):
            counted = sum(
                (getattr(group, name) if name != "launches" else 1)
                * (group.gradient + number * group.iteration)
                for group in step.launches
            )
            assert counted == pytest.approx(steps[str(number)][name], rel=tolerance)


def test_the_benchmark_s_shape_is_that_of_its_presets():
    for preset in ("mlperf_reference", "mlperf_256x8_dap8", "initial_training_2080"):
        assert shape_name(build_preset(preset)) == BENCHMARK_SHAPE


def test_missing_counts_are_named_with_what_there_is():
    with pytest.raises(BenchmarkError, match="no counts of nvidia_v3.0 with DAP 3 .* DAP \\["):
        read_table().find(code=NVIDIA, shape=BENCHMARK_SHAPE, dap=3)
    with pytest.raises(BenchmarkError, match="no counts of project for samples of the shape x"):
        read_table().find(code=PROJECT, shape="x", dap=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"launches": []}, "launches is empty"),
        ({"dap": 0}, "dap is 0"),
        ({"bytes": math.nan}, "bytes is nan; expected a number"),
        ({"flops": -1}, "flops is -1; expected a number"),
        ({"iteration": "3"}, "iteration is '3'; expected a number"),
        ({"kind": 3}, "kind is 3"),
    ],
)
def test_damaged_counts_are_an_error(tmp_path, change, message):
    value = json.loads(STORED.read_text())
    step = value["steps"][1]
    (step if change.keys() <= step.keys() else step["launches"][2]).update(change)
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(value))
    with pytest.raises(BenchmarkError, match=message) as error:
        read_table(path)
    assert "steps[1]" in str(error.value) and "write them with `plan counts`" in str(error.value)


def test_the_command_that_writes_missing_counts_has_the_preset_and_its_code(capsys):
    command = "plan counts --preset demo_dap2 --code mlcommons_reference --dap 1 2 --out FILE"
    options = ["--preset", "demo_dap2", "--system", "h100_sxm"]
    assert main(["plan", "train", *options]) == 2
    assert command in capsys.readouterr().err
    assert main(["plan", "search", *options, "--gpus", "8"]) == 2
    assert command.replace("--dap 1 2", "--dap 1") in capsys.readouterr().err


def launch(size: int, direction="forward", flops=0) -> Launch:
    return Launch(
        kernel="aten::add",
        signature=None,
        module="",
        direction=direction,
        bytes=size,
        flops=flops,
    )


def trace(launches, collectives=()) -> Trace:
    return Trace(launches=launches, triton_launches=[], collectives=dict(collectives))


def test_blocks_are_extrapolated_and_similar_launches_added_up():
    fixed, block = [launch(10**6)], [launch(2**20), launch(2**20), launch(3 * 2**30, "backward")]
    forward = block[:2]
    traces = {
        (1, 0): trace(fixed + block),
        (2, 0): trace(fixed + 2 * block),
        (1, 1): trace(2 * fixed + block + forward),
        (2, 1): trace(2 * fixed + 2 * block + 2 * forward),
    }
    small, large = sorted(_groups(traces, 48), key=lambda group: group.bytes)
    # 10**6 and 2**20 bytes are similar.
    assert (small.gradient, small.iteration, small.block) == (97, 97, 2)
    assert small.bytes == round((10**6 + 96 * 2**20) / 97)
    assert (large.gradient, large.iteration, large.block) == (48, 0, 0)


def test_buffers_that_grow_with_the_blocks_keep_their_sum():
    """A buffer of all blocks is one launch, whose size differs in the traces."""
    many = [launch(2**10)] * 10
    traces = {
        (1, 0): trace([*many, launch(2**20)]),
        (2, 0): trace([*many, *many, launch(2**22)]),
        (1, 1): trace([*many, *many, launch(2**20)]),
        (2, 1): trace([*many, *many, *many, *many, launch(2**22)]),
    }
    groups = _groups(traces, 4)
    assert all(min(group.gradient, group.iteration) >= 0 for group in groups)
    assert sum(group.gradient for group in groups) == 41
    gradient = 40 * 2**10 + 2**20 + 3 * (2**22 - 2**20)
    iteration = 40 * 2**10
    total = sum(group.bytes * (group.gradient + group.iteration) for group in groups)
    assert total == pytest.approx(gradient + iteration, rel=1e-3)


def test_collectives_of_an_iteration_are_those_that_it_adds():
    calls = {
        ("edges", "all-gather", 100): (1, 2, 2, 4),
        ("edges", "reduce-scatter", 100): (1, 2, 1, 2),
        ("pairs", "all-to-all", 50): (2, 4, 3, 6),
    }
    traces = {
        size: trace([], {name: numbers[i] for name, numbers in calls.items()})
        for i, size in enumerate([(1, 0), (2, 0), (1, 1), (2, 1)])
    }
    found = {each.kind: (each.gradient, each.iteration) for each in _collectives(traces, 10)}
    assert found == {
        "all-gather": (10, 1 + 9),
        "reduce-scatter": (10, 0),
        "all-to-all": (20, 1 + 9),
    }


def test_classes_come_from_the_machine_code_of_a_record():
    kinds = read_classes(RECORD)
    assert set(kinds.values()) <= {"wgmma", "mma", "fma"} and "wgmma" in kinds.values()
