"""Systems of CPUs: rates from records of `perf`."""

import json
from statistics import NormalDist

import numpy as np
import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.call_trace import VIEW, CallGroup
from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.calibration import calibrate_cpu
from benchmark.plan.cpu_rates import fit_rates, nonnegative_least_squares
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
    write_json,
)


def test_known_rates_are_found():
    calls = step_calls()
    rates = fit_rates(calls.calls, calls.small_calls, {"forward": 4e-4, "backward": 8e-4}, 0.02)
    mul, mm = rates.operators["mul"], rates.operators["mm"]
    assert mul.seconds_per_near_byte == pytest.approx(NEAR)
    assert mul.seconds_per_far_byte == pytest.approx(FAR)
    assert mul.seconds_per_loop == pytest.approx(LOOP)
    assert mm.seconds_per_flop == pytest.approx(FLOP)
    assert rates.forward_call_seconds == pytest.approx(CALL)
    assert rates.backward_call_seconds == pytest.approx(2 * CALL)


def test_a_view_has_no_work_and_an_unknown_operator_that_of_the_others():
    rates = cpu_system().rates
    sizes = {"direction": "forward", "calls": 3, "flops": 0.0, "loops": 1.0}
    view = CallGroup(operator=VIEW, bytes=1e6, **sizes)
    other = CallGroup(operator="erfinv", bytes=1e6, **sizes)
    assert rates.work(view) == 0.0
    assert rates.work(other) == pytest.approx(3 * 1e6 * NEAR)
    assert rates.overhead([view, other]) == pytest.approx(6 * CALL)


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
    assert "100% of the time" in system.sources["rates"]
    with pytest.raises(BenchmarkError, match="only `plan train` has a model"):
        load_system(str(out))


def test_the_deviation_of_a_step_is_that_of_the_undisturbed_ones(tmp_path):
    record = kernels_record()
    steps = record["figures"]["calls"]["small_seconds"]
    # A normal distribution around 0.2 s with a deviation of 5 %, and two disturbed steps.
    normal = NormalDist(0.1, 0.005)
    seconds = [normal.inv_cdf((n + 0.5) / 100) for n in range(100)] + [5.0] * 2
    steps["forward"] = steps["backward"] = seconds
    rates = calibrate_cpu([write_json(tmp_path / "kernels.json", record)]).rates
    assert rates.step_deviation == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([comm_record()], "found 0 records of `perf kernels`"),
        ([kernels_record(), kernels_record()], "found 2 records of `perf kernels`"),
        ([kernels_record(calls=None)], "expected the calls of a step on a CPU"),
        ([kernels_record(device="cuda")], "found none of cuda"),
        ([kernels_record(threads=2)], "measure with --threads 1"),
        ([kernels_record(calls={"calls": []})], "calls that cannot be used"),
        ([kernels_record() | {"machine": {}}], "expected the number of cores"),
        ([kernels_record(), {"measurement": "loader", "figures": {}}], "expected `perf comm`"),
        ([kernels_record(), {"measurement": "comm", "figures": {}}], "no fits of collectives"),
    ],
)
def test_other_records_are_refused(records, message, tmp_path):
    paths = [write_json(tmp_path / f"{i}.json", record) for i, record in enumerate(records)]
    with pytest.raises(BenchmarkError, match=message):
        calibrate_cpu(paths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.pop("rates"), "rates is missing"),
        (lambda value: value["rates"].pop("others"), "rates.others is missing"),
        (lambda value: value.pop("num_cores"), "num_cores is missing"),
        (
            lambda value: value["rates"].update(forward_call_seconds=-1),
            "rates.forward_call_seconds is -1; expected a number",
        ),
        (
            lambda value: value["rates"]["others"].update(seconds_per_flop="fast"),
            "rates.others.seconds_per_flop is 'fast'",
        ),
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
