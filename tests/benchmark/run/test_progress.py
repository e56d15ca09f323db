"""`benchmark status` of a run with two phases: phase, condition, percentage and time left."""

import dataclasses
import json

import pytest

from benchmark.__main__ import main
from benchmark.run.failure import describe_failure
from benchmark.run.job_chain import phase_state
from benchmark.run.output_directory import OutputDirectory
from benchmark.run.phase_record import read_phase_records
from benchmark.run.progress import RunPlan, describe_condition, describe_time_left
from benchmark.run.run_clock import RunClock
from benchmark.run.run_record import RunRecord
from benchmark.run.status import read_status, status_lines, with_phase
from openfold_opt.train.errors import PhaseConditionError
from openfold_opt.train.phase_config import PhaseConfig
from tests.support.phased_run import (
    evaluation_report,
    phase_report,
    run_info,
    step_report,
    write_config,
    write_reports,
    write_state,
)


def status(folder, *, holder=None):
    """Return the lines of the command by their names; the first one has the name "outcome".

    holder: the process of a run that is alive.
    """
    found = dataclasses.replace(read_status(folder), lock_holder_name=holder)
    outcome, *lines = status_lines(found)
    return {"outcome": outcome} | {line[:13].strip(): line[13:] for line in lines}


def test_running_phase(tmp_path):
    write_config(tmp_path, 1)
    write_reports(tmp_path, 30)
    write_state(tmp_path, "running")
    found = status(tmp_path, holder="process 7 on node1")
    # 10 steps of 0.25 s, and 2 s per evaluation every 20 steps
    left = "at most 0:00:04 to step 40, the end of the phase (0.35 s per step)"
    assert found["outcome"].startswith("running: phase first (1 of 2), step 30 of 100 (30 %), ")
    assert found["outcome"].endswith(f", {left}")
    assert found["phase"] == "first (1 of 2), step 30 of 40 of the phase (75 %)"
    assert found["condition"] == (
        "lDDT-Ca 0.6 at its end, else the run stops (best so far 0.2000 after step 20)"
    )
    assert found["time left"] == (
        f"{left}; 0:00:24 to step 100, the end of the run, if later phases are as fast"
    )


def test_the_pace_is_that_of_the_phase(tmp_path):
    write_config(tmp_path, 1)
    write_config(tmp_path, 2, name="config_phase_2.json")
    write_reports(tmp_path, 50)
    write_state(tmp_path, "running")
    found = status(tmp_path, holder="process 7 on node1")
    assert found["phase"] == "second (2 of 2), step 10 of 60 of the phase (16 %)"
    assert found["condition"] == "ends at lDDT-Ca 0.9 (no evaluation yet)"
    # 50 steps of 0.5 s and 0.1 s for evaluation
    assert found["time left"] == "at most 0:00:30 to step 100 (0.6 s per step)"


def test_no_time_left_before_the_first_step_of_a_phase(tmp_path):
    write_config(tmp_path, 2)
    plan = RunPlan.from_json(json.loads((tmp_path / "config.json").read_text()))
    steps = [step_report(step) for step in range(1, 41)]
    assert describe_time_left(plan, steps, [evaluation_report(40)]) is None
    assert describe_time_left(plan, [*steps, step_report(41)], []) is not None


def test_complete_phase_names_the_next_one(tmp_path, capsys):
    write_config(tmp_path, 1)
    write_reports(tmp_path, 40)
    write_state(tmp_path, "phase complete")
    found = status(tmp_path)
    assert found["outcome"] == (
        "phase complete: first (1 of 2) ended after step 40 of 100, lDDT-Ca 0.4000"
    )
    assert found["continue"] == (
        "python -m benchmark run --preset two --phase second --output-dir /runs/two "
        "(on the ranks of that phase)"
    )
    assert "time left" not in found
    assert main(["status", str(tmp_path)]) == 0


def test_a_phase_that_ended_early_shortens_the_run(tmp_path):
    write_config(tmp_path, 1)
    content = json.loads((tmp_path / "config.json").read_text())
    content["phase"]["last_step"] = 30
    assert RunPlan.from_json(content).last_step == 90


def test_records_of_a_run_are_read(tmp_path):
    """The observer that writes them, in place of the files of tests.support.phased_run."""
    settings = tuple(
        PhaseConfig(name=name, steps=steps, required_lddt_ca=score, global_batch_size=2)
        for name, steps, score in (("first", 40, 0.6), ("second", 60, None))
    )
    config = dataclasses.replace(run_info().config, phases=settings, max_steps=100)
    directory = OutputDirectory(tmp_path / "out", identity={}, seed=1, new_seed=1)
    try:
        record = RunRecord(directory, preset="two", division="open", clock=RunClock())
        record.init_start(config, seed=1)
        info = run_info()
        info = dataclasses.replace(info, config=dataclasses.replace(info.config, max_steps=100))
        record.init_stop(info)
        for number in (1, 2):
            record.phase_start(dataclasses.replace(phase_report(number), info=info))
            found = read_status(directory.path)
            assert found.plan.phase == read_phase_records(directory.path)[-1]
            assert (found.plan.phase.number, found.plan.last_step) == (number, 100)
            assert [phase.name for phase in found.plan.phases] == ["first", "second"]
            record.phase_stop(phase_report(number))
            assert phase_state(found.state.phase, found.state, is_alive=True) == "running"
        state = read_status(directory.path).state
        assert phase_state("second", state, is_alive=True) == "complete"
    finally:
        directory.close()
    assert describe_condition(found.plan, []) == "none (no evaluation yet)"


def test_failed_condition(tmp_path):
    write_config(tmp_path, 1)
    write_reports(tmp_path, 40)
    error = describe_failure(PhaseConditionError("phase first reached 0.4, needs 0.6"), step=40)
    assert error.kind == "condition"
    failure = {name: getattr(error, name) for name in error.__dataclass_fields__}
    write_state(tmp_path, "failed", error=failure)
    found = status(tmp_path)
    assert found["outcome"] == (
        "condition failed: a phase did not reach the lDDT-Ca that it requires, after step 40, "
        "rank 0"
    )
    assert found["error"].startswith("PhaseConditionError: phase first reached 0.4, needs 0.6")


def test_success_of_a_run_with_phases(tmp_path):
    write_config(tmp_path, 2)
    write_reports(tmp_path, 100)
    write_state(tmp_path, "finished", outcome="success")
    assert status(tmp_path)["outcome"] == (
        "success: the last phase ended after step 100 of 100, lDDT-Ca 1.0000"
    )


def test_run_without_phases_has_a_percentage(tmp_path):
    write_config(tmp_path, 1)
    content = json.loads((tmp_path / "config.json").read_text())
    content["phase"], content["config"]["phases"] = None, []
    (tmp_path / "config.json").write_text(json.dumps(content))
    write_reports(tmp_path, 25)
    write_state(tmp_path, "running")
    found = status(tmp_path, holder="process 7 on node1")
    assert found["outcome"].startswith("running: step 25 of 100 (25 %), process ")
    assert found["last step"] == "25 of 100 (25 %)"
    assert "phase" not in found and "condition" not in found


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("run --phase 1 --seed 2", "run --phase second --seed 2"),
        ("run --output-dir 'a b'", "run --output-dir 'a b' --phase second"),
    ],
)
def test_phase_of_a_command_is_replaced(command, expected):
    assert with_phase(command, "second") == expected
