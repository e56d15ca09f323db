"""`plan train` on a system of CPUs."""

import dataclasses
import json

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.plan.calibration import calibrate_cpu
from benchmark.plan.cpu_counts import count_cpu_step
from benchmark.plan.cpu_plan import plan_cpu_phase
from benchmark.plan.step_model import PARTS
from benchmark.plan.systems import Link
from benchmark.presets import build_preset
from openfold_opt.train.phases import phases_of
from tests.support.cpu_records import (
    CALL,
    KINDS,
    comm_record,
    cpu_system,
    kernels_record,
    write_json,
)

LINK = Link(latency_seconds=3e-4, bytes_per_second=1e9)
WAIT = 2e-4
LINKS = dict.fromkeys(KINDS, LINK)


def phase_of(preset, **changes):
    phase = phases_of(build_preset(preset))[-1]
    return dataclasses.replace(phase, config=dataclasses.replace(phase.config, **changes))


def test_each_phase_of_the_demo_is_planned(tmp_path, capsys):
    kernels = write_json(tmp_path / "kernels.json", kernels_record())
    comm = write_json(tmp_path / "comm.json", comm_record())
    system = write_json(tmp_path / "system.json", calibrate_cpu([kernels, comm]))
    json_file, picture = tmp_path / "plan.json", tmp_path / "plan.png"
    options = ["--preset", "demo", "--system", str(system)]
    options += ["--json", str(json_file), "--png", str(picture)]
    assert main(["plan", "train", *options]) == 0
    shown = capsys.readouterr().out
    assert "demo, short_crops, on 2 ranks of some_cpu_r_3, DAP 1; batch 4" in shown
    value = json.loads(json_file.read_text())
    plans = value["plans"]
    assert [plan["phase"] for plan in plans] == ["short_crops", "crops", "chains", "violations"]
    seconds = [plan["step_seconds"] for plan in plans]
    assert seconds == sorted(seconds)
    assert set(plans[0]["parts"]) == set(PARTS)
    assert [bar["seconds"] for bar in value["bars"]] == [plan["parts"] for plan in plans]
    assert picture.read_bytes().startswith(b"\x89PNG")
    counts = str(tmp_path / "counts.json")
    assert main(["plan", "train", *options, "--counts", counts]) == 2
    assert f"--counts {counts}: a plan on CPUs traces the step itself" in capsys.readouterr().err


def test_the_parts_are_calls_work_and_collectives():
    phase = phase_of("demo")
    counts = count_cpu_step(phase.config)
    plan = plan_cpu_phase(
        phase, cpu_system(collectives=LINKS), 2, preset="demo", loader_seconds=0.01
    )
    calls = sum(group.calls for group in counts.gradient.calls)
    assert plan.parts["launches"] == pytest.approx(calls * CALL)
    assert plan.num_calls == calls + sum(group.calls for group in counts.optimizer)
    sent = 4 * counts.num_parameters
    assert plan.parts["all-reduce"] == pytest.approx(3e-4 + sent / 1e9)
    assert plan.parts["collectives"] == 0.0
    assert plan.parts["loader"] == 0.01
    assert plan.batch == 4 and plan.warnings == []
    # One rank takes two micro-steps for the same batch.
    alone = plan_cpu_phase(phase, cpu_system(), 1, preset="demo")
    assert alone.parts["launches"] == pytest.approx(2 * plan.parts["launches"])
    assert alone.parts["all-reduce"] == alone.parts["slow ranks"] == 0.0
    assert "measured with 2 processes at the same time, and 1 ranks" in alone.warnings[0]


def test_dap_sends_and_divides_the_work():
    system = cpu_system(collectives=LINKS, wait_seconds=WAIT)
    sharded = plan_cpu_phase(phase_of("demo_dap2"), system, 2, preset="demo_dap2")
    alone = plan_cpu_phase(phase_of("demo_one_phase"), system, 1, preset="demo_one_phase")
    assert sharded.parts["collectives"] > 20 * 3e-4
    assert sharded.num_calls > alone.num_calls
    # The ranks meet at the all-reduce alone, or also at the collectives of all blocks.
    data_parallel = plan_cpu_phase(phase_of("demo"), system, 2, preset="demo")
    assert data_parallel.parts["slow ranks"] == pytest.approx(WAIT)
    assert 50 * WAIT < sharded.parts["slow ranks"] < 150 * WAIT
    assert 0.5 < sharded.parts["compute"] / alone.parts["compute"] < 0.95
    assert sharded.batch == alone.batch == 2


def test_ranks_wait_in_recycling_iterations_too():
    config = build_preset("demo_dap2")
    data = dataclasses.replace(config.data, crop_size=8, max_recycling_iterations=2)
    phase = phase_of("demo_dap2", data=data)
    counts = count_cpu_step(phase.config)
    gradient, both = (
        sum(each.calls for each in passes.collectives)
        for passes in (counts.gradient, counts.with_iteration)
    )
    assert both > gradient
    plan = plan_cpu_phase(
        phase, cpu_system(collectives=LINKS, wait_seconds=WAIT), 2, preset="demo_dap2"
    )
    # The mean is one iteration.
    assert plan.parts["slow ranks"] == pytest.approx((1 + both) * WAIT)


def test_recycling_iterations_take_longer():
    config = build_preset("demo_one_phase")
    data = dataclasses.replace(config.data, crop_size=8, max_recycling_iterations=2)
    plan = plan_cpu_phase(
        phase_of("demo_one_phase", data=data), cpu_system(), 1, preset="demo_one_phase"
    )
    none, one, two = plan.seconds_by_iterations.values()
    assert none < one and two - one == pytest.approx(one - none)
    assert plan.step_seconds == pytest.approx(one)


@pytest.mark.parametrize(
    ("preset", "ranks", "message"),
    [
        ("demo", 2, "no figures of the collective all-reduce .it has none.; measure them with"),
        ("demo", 3, "--gpus 3: global_batch_size=4 is not a multiple"),
        ("demo_dap2", 1, "--gpus 1: "),
        ("demo_async_eval", 2, "1 ranks of the preset only evaluate"),
        ("mlperf_fast", 1, "only steps with reference kernels in fp32 are planned"),
    ],
)
def test_what_cannot_be_planned_is_named(preset, ranks, message):
    with pytest.raises(BenchmarkError, match=message):
        plan_cpu_phase(phase_of(preset), cpu_system(), ranks, preset=preset)


def test_more_ranks_than_cores_are_warned_of():
    plan = plan_cpu_phase(phase_of("demo_2x2"), cpu_system(collectives=LINKS), 4, preset="demo_2x2")
    assert "4 ranks share 2 cores" in plan.warnings[0]
