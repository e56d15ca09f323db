"""Systems of CPUs: rates from records of `perf`."""

import dataclasses
import json
import math

import numpy as np
import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.call_trace import VIEW, CallGroup
from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.calibration import calibrate_cpu
from benchmark.plan.cpu_rates import (
    CallOverhead,
    MeasuredStep,
    fit_rates,
    nonnegative_least_squares,
)
from benchmark.plan.cpu_system import load_cpu_system
from benchmark.plan.systems import is_cpu_system, load_system
from tests.support.cpu_records import (
    CALL,
    FAR,
    FLOP,
    LOOP,
    NEAR,
    comm_record,
    cpu_system,
    kernels_record,
    step_calls,
    timed,
    write_json,
)


def test_known_rates_are_found():
    steps = [
        MeasuredStep(calls=step.calls, seconds=step.seconds[0]) for step in reversed(step_calls())
    ]
    rates = fit_rates(steps)
    mul, mm = rates.operators["mul"], rates.operators["mm"]
    assert mul.seconds_per_near_byte == pytest.approx(NEAR)
    assert mul.seconds_per_far_byte == pytest.approx(FAR)
    assert mul.seconds_per_loop == pytest.approx(LOOP)
    assert mm.seconds_per_flop == pytest.approx(FLOP)
    small, large = rates.overheads
    assert small.seconds == pytest.approx(CALL) and small.bytes_per_call == 1.0
    assert large.seconds == pytest.approx(2 * CALL)
    for step in steps:
        assert rates.seconds(step.calls) == pytest.approx(step.seconds)


def test_the_overhead_of_a_call_grows_with_the_bytes_of_the_step():
    known = [(1e3, CALL), (2e3, 2 * CALL)]
    rates = dataclasses.replace(
        cpu_system().rates,
        overheads=[CallOverhead(bytes_per_call=size, seconds=each) for size, each in known],
    )
    sizes = (1.0, 1.5e3, 1e9)
    found = [rates.call_seconds([timed("mul", size)]) for size in sizes]
    assert found == pytest.approx([CALL, 1.5 * CALL, 2 * CALL])


def test_a_view_has_no_work_and_an_unknown_operator_that_of_the_others():
    rates = cpu_system().rates
    sizes = {"direction": "forward", "calls": 3, "flops": 0.0, "loops": 1.0}
    view = CallGroup(operator=VIEW, bytes=1e6, **sizes)
    other = CallGroup(operator="erfinv", bytes=1e6, **sizes)
    assert rates.work([view]) == 0.0
    assert rates.work([view, other]) == pytest.approx(3 * 1e6 * NEAR)
    assert rates.seconds([view, other]) == pytest.approx(3 * 1e6 * NEAR + 6 * CALL)


def test_negative_rates_become_zero():
    matrix = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert nonnegative_least_squares(matrix, np.array([3.0, 2.0, 1.0])) == pytest.approx([2.0, 0.0])


def test_records_become_a_system(tmp_path, capsys):
    kernels = write_json(tmp_path / "kernels.json", kernels_record())
    comm = write_json(tmp_path / "comm.json", comm_record())
    out = tmp_path / "this.json"
    arguments = ["--calibrate", str(kernels), str(comm), "--out", str(out)]
    assert main(["plan", "systems", *arguments]) == 0
    assert "some_cpu_r_3: 2 cores, measured with 2 processes" in capsys.readouterr().out
    assert is_cpu_system(str(out)) and not is_cpu_system("h100_sxm")
    system = load_cpu_system(str(out))
    assert system == calibrate_cpu([kernels, comm])
    assert system.link("all-to-all").latency_seconds == 3e-4
    assert "kernels.json of 2026-11-30" in system.sources["rates"]
    assert system.warnings == []
    with pytest.raises(BenchmarkError, match="only `plan train` has a model"):
        load_system(str(out))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"waited_share": 0.3}, "for 30% of a step, the core of the rank ran something else"),
        ({"seconds": [1.0, 1.6, 1.6]}, "a median step took 60% longer than the quietest tenth"),
    ],
)
def test_a_busy_machine_is_warned_of(change, message, tmp_path, capsys):
    record = kernels_record()
    record["figures"]["calls"][0].update(change)
    kernels = write_json(tmp_path / "kernels.json", record)
    out = tmp_path / "this.json"
    assert main(["plan", "systems", "--calibrate", str(kernels), "--out", str(out)]) == 0
    assert message in capsys.readouterr().out
    (warning,) = load_cpu_system(str(out)).warnings
    assert warning.startswith("the calibration was disturbed") and message in warning


def test_the_wait_at_a_collective_is_what_sharded_steps_take_more(tmp_path):
    kernels = write_json(tmp_path / "kernels.json", kernels_record())
    record = comm_record()
    system = calibrate_cpu([kernels, write_json(tmp_path / "comm.json", record)])
    assert system.wait_seconds == pytest.approx(2e-3) and system.warnings == []
    record["figures"]["sharded_steps"] = []
    with pytest.raises(BenchmarkError, match="sharded_steps is empty; measure with"):
        calibrate_cpu([kernels, write_json(tmp_path / "comm.json", record)])
    del record["figures"]["sharded_steps"]
    system = calibrate_cpu([kernels, write_json(tmp_path / "comm.json", record)])
    assert system.wait_seconds == 0.0
    assert "measured without --steps" in system.warnings[0]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([comm_record()], "found 0 records of `perf kernels`"),
        ([kernels_record(), kernels_record()], "found 2 records of `perf kernels`"),
        ([kernels_record(calls=None)], "expected the calls of a step on a CPU"),
        ([kernels_record(device="cuda")], "found none of cuda"),
        ([kernels_record(threads=2)], "measure with --threads 1"),
        ([kernels_record(calls=[{"calls": []}])], "calls that cannot be used"),
        ([kernels_record(calls={"calls": []})], "expected a list, found .* measure again with"),
        ([kernels_record(num_processes=None)], "num_processes is missing; measure again"),
        ([kernels_record() | {"machine": []}], "machine.processor is None"),
        ([kernels_record() | {"machine": {"processor": "CPU"}}], "machine.cpu_count is None"),
        ([kernels_record(), comm_record(), comm_record()], "found 2 records of `perf comm`"),
        (
            [kernels_record(), comm_record() | {"machine": {"processor": "C", "cpu_count": 2}}],
            "processor .*'C'.*; expected those of the record of `perf kernels`",
        ),
        ([kernels_record(), {"measurement": "loader", "figures": {}}], "expected `perf comm`"),
        ([kernels_record(), {"measurement": "comm", "figures": {}}], "no fits of collectives"),
    ],
)
def test_other_records_are_refused(records, message, tmp_path):
    paths = [write_json(tmp_path / f"{i}.json", record) for i, record in enumerate(records)]
    with pytest.raises(BenchmarkError, match=message):
        calibrate_cpu(paths)


@pytest.mark.parametrize("number", [None, math.nan, math.inf, -1, 10**400, "fast", [], True])
@pytest.mark.parametrize(
    "field",
    [
        "calls.0.calls.0.calls",
        "calls.1.calls.0.bytes",
        "calls.1.calls.0.flops",
        "calls.1.calls.0.loops",
        "calls.1.calls.0.seconds",
        "calls.1.seconds.0",
        "calls.0.waited_share",
        "fits.all-gather.latency_seconds",
        "sharded_steps.0.seconds.0",
        "sharded_steps.0.counts.calls.0.bytes",
        "sharded_steps.0.counts.collectives.0.calls",
        "sharded_steps.0.counts.collectives.0.sent_bytes",
    ],
)
def test_numbers_that_cannot_be_measured_are_refused(field, number, tmp_path, capsys):
    records = {"kernels": kernels_record(), "comm": comm_record()}
    *names, last = [int(name) if name.isdigit() else name for name in field.split(".")]
    changed = records["kernels" if names[0] == "calls" else "comm"]["figures"]
    for name in names:
        changed = changed[name]
    changed[last] = number
    paths = [str(write_json(tmp_path / f"{name}.json", each)) for name, each in records.items()]
    out = tmp_path / "this.json"
    assert main(["plan", "systems", "--calibrate", *paths, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert str(last) in error and "expected a" in error and "measure" in error
    assert len(error) < 500 and not out.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.pop("rates"), "rates is missing"),
        (lambda value: value["rates"].update(overheads=3), "rates.overheads is empty or no list"),
        (
            lambda value: value["rates"]["overheads"].append(
                {"bytes_per_call": 10, "seconds": 1e-6}
            ),
            "expected them to increase",
        ),
        (
            lambda value: value["rates"]["overheads"].extend(value["rates"]["overheads"]),
            "expected them to increase",
        ),
        (lambda value: value.update(warnings=[["x"]]), "warnings is"),
        (lambda value: value["rates"].pop("others"), "rates.others is missing"),
        (lambda value: value.pop("num_cores"), "num_cores is missing"),
        (
            lambda value: value["rates"]["overheads"][0].update(seconds=-1),
            "rates.overheads.seconds is -1; expected a number",
        ),
        (
            lambda value: value["rates"]["others"].update(seconds_per_flop="fast"),
            "rates.others.seconds_per_flop is 'fast'",
        ),
        (lambda value: value["rates"].update(overheads=[]), "rates.overheads is empty"),
        (lambda value: value.update(speed=3), "expected the fields"),
    ],
)
def test_a_missing_or_wrong_figure_is_named(change, message, tmp_path):
    value = to_json(cpu_system())
    change(value)
    path = tmp_path / "system.json"
    path.write_text(json.dumps(value))
    with pytest.raises(BenchmarkError, match=message):
        load_cpu_system(str(path))
