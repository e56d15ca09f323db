"""When a phase ends, its outcome, and the configuration of the phases of a run."""

import dataclasses

import pytest

from openfold_opt.train.checkpoint.run_state import PhaseProgress, Progress
from openfold_opt.train.config import config_fields, config_hash
from openfold_opt.train.errors import SetupError
from openfold_opt.train.global_batch import check_phase_ranks
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.phase_config import PhaseConfig
from openfold_opt.train.phase_goal import (
    ABORTED,
    CONDITION_FAILED,
    PHASE_COMPLETE,
    SUCCESS,
    PhaseGoal,
)
from openfold_opt.train.phases import find_phase, phases_of
from tests.support.synthetic_samples import tiny_config


def run_of(*phases, **changes):
    changes = {"global_batch_size": 2, "max_steps": 100} | changes
    return tiny_config(phases=tuple(PhaseConfig(**phase) for phase in phases), **changes)


TWO = ({"name": "a", "steps": 10}, {"name": "b", "steps": 20, "global_batch_size": 4})


def goal_of(number, *, steps_before=0, best=None, **settings):
    phases = [dict(phase) for phase in TWO]
    phases[number] |= settings
    progress = PhaseProgress(index=number, steps_before=steps_before, best_lddt_ca=best)
    return PhaseGoal(phases_of(run_of(*phases))[number], progress)


def test_a_phase_is_complete_after_its_steps():
    assert goal_of(0).last_step == 10
    assert goal_of(0).outcome_after_steps(10) == PHASE_COMPLETE
    assert goal_of(0).add_score(0.99, 10) is None
    last = goal_of(1, steps_before=10)
    assert (last.last_step, last.outcome_after_steps(30)) == (30, SUCCESS)


def test_a_score_ends_a_phase():
    first = goal_of(0, end_lddt_ca=0.7)
    assert first.add_score(0.69, 4) is None and first.add_score(0.7, 5) == PHASE_COMPLETE
    assert first.outcome_after_steps(10) == PHASE_COMPLETE
    last = goal_of(1, steps_before=5, end_lddt_ca=0.7)
    assert last.last_step == 25
    assert last.outcome_after_steps(25) == ABORTED and last.add_score(0.8, 25) == SUCCESS


@pytest.mark.parametrize(
    ("by_step", "scores", "expected"),
    [
        (None, [(0.5, 18), (0.59, 30)], CONDITION_FAILED),
        (None, [(0.6, 18), (0.1, 30)], None),
        (5, [(0.5, 14), (0.59, 16)], CONDITION_FAILED),
        (5, [(0.5, 14), (0.6, 16)], None),
    ],
    ids=["too low at the end", "reached before", "too low at the deadline", "just reached"],
)
def test_the_condition_of_a_phase(by_step, scores, expected):
    goal = goal_of(1, steps_before=10, required_lddt_ca=0.6, required_by_step=by_step)
    *_, last = [goal.add_score(*score) for score in scores]
    assert last == expected
    if expected is not None:
        deadline = 30 if by_step is None else 15
        assert f"expected at least 0.6 by step {deadline}" in goal.describe_failure(scores[-1][1])


def test_the_best_score_survives_a_resumption():
    goal = goal_of(1, steps_before=10, best=0.65, required_lddt_ca=0.6)
    assert goal.is_condition_met(30) and goal.add_score(0.5, 30) is None
    assert not goal_of(1, steps_before=10, required_lddt_ca=0.6).is_condition_met(30)


def test_max_steps_cuts_a_phase():
    phases = phases_of(run_of(*TWO, max_steps=8))
    goal = PhaseGoal(phases[0], PhaseProgress())
    assert (goal.last_step, goal.outcome_after_steps(8)) == (8, ABORTED)


def test_a_run_without_phases_has_one_that_ends_at_the_target():
    config = tiny_config()
    (phase,) = phases_of(config)
    assert phase.config == config and phase.is_last and phase.count == 1
    goal = PhaseGoal(phase, PhaseProgress())
    assert goal.add_score(1.0, 4) == SUCCESS and goal.outcome_after_steps(8) == ABORTED


def test_phases_have_complete_configurations():
    data = dataclasses.replace(tiny_config().data, crop_size=12)
    schedule = ScheduleConfig(base_learning_rate=2.0, warmup_steps=2, warmup_init_learning_rate=1.0)
    config = run_of(*TWO, {"name": "c", "steps": 1, "data": data, "schedule": schedule})
    first, second, third = phases_of(config)
    assert [phase.first_sample for phase in (first, second, third)] == [0, 20, 100]
    assert [phase.config.global_batch_size for phase in (first, second, third)] == [2, 4, 2]
    assert third.config.data.crop_size == 12 and second.config.data == config.data
    # The schedule of a phase counts its steps, that of the run counts the steps of the run.
    assert [third.learning_rate(30)(step) for step in (31, 32, 33)] == [1.0, 2.0, 2.0]
    assert second.learning_rate(10)(11) == config.schedule.base_learning_rate


def test_progress_counts_the_samples_of_all_phases():
    progress = Progress(step=10, samples_seen=20, lddt_ca=0.5).at_next_phase()
    assert (progress.phase.index, progress.phase.steps_before, progress.step) == (1, 10, 10)
    assert progress.samples_at(12, global_batch_size=4) == 28


def test_phases_are_found_by_name_and_by_number():
    config = run_of(*TWO)
    assert find_phase(config, "b").index == find_phase(config, "2").index == 1
    with pytest.raises(SetupError, match="no phase 'c'; its phases are a, b"):
        find_phase(config, "c")


def test_the_condition_may_change_when_a_run_is_resumed():
    hashes = {
        config_hash(run_of({"name": "a", "steps": 10} | changes))
        for changes in ({}, {"required_lddt_ca": 0.5}, {"name": "b"}, {"dap_size": 2})
    }
    assert len(hashes) == 1
    for changes in ({"steps": 9}, {"end_lddt_ca": 0.5}, {"global_batch_size": 4}):
        assert config_hash(run_of({"name": "a", "steps": 10} | changes)) not in hashes
    assert "phases.1.global_batch_size" in [leaf.path for leaf in config_fields(run_of(*TWO))]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "a b"}, "phase name 'a b': expected letters"),
        ({"steps": 0}, "phase a: steps=0, expected at least 1"),
        ({"end_lddt_ca": 1.5}, "end_lddt_ca=1.5, expected above 0"),
        ({"required_by_step": 3}, "required_by_step=3 needs required_lddt_ca"),
        ({"required_lddt_ca": 0.5, "required_by_step": 11}, "may be at most steps=10"),
        ({"required_lddt_ca": 0.8, "end_lddt_ca": 0.7}, "ends the phase below"),
    ],
    ids=["name", "steps", "score", "deadline without score", "late deadline", "low end"],
)
def test_faulty_phases_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run_of({"name": "a", "steps": 10} | settings)


def test_phases_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="every phase needs a name of its own"):
        run_of(TWO[0], TWO[0])
    with pytest.raises(ValueError, match="phase a has no global batch"):
        run_of(TWO[0], global_batch_size=None)
    with pytest.raises(ValueError, match="phase a: global_batch_size=3: expected a positive"):
        phases_of(run_of(TWO[0] | {"global_batch_size": 3, "local_batch_size": 2}))
    phases = phases_of(run_of(TWO[0], TWO[1] | {"dap_size": 4}))
    with pytest.raises(ValueError, match=r"phase b \(2 of 2\) does not fit 2 ranks: found 2 ranks"):
        check_phase_ranks(phases, 2)
    check_phase_ranks(phases[:1], 2)
