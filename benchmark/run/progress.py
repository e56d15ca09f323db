"""Progress of a run and the time left, from its configuration and its last steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from benchmark.run.phase_record import PhaseRecord, PlannedPhase
from openfold_opt.train.observer import EvaluationReport, StepReport

RECENT_STEPS = 50
"""Number of steps whose mean duration predicts the time left."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What config.json says about the length of a run."""

    num_ranks: int
    max_steps: int
    evaluate_every_steps: int
    num_evaluation_ranks: int
    target_lddt_ca: float
    phase: PhaseRecord | None = None
    """The phase that started or continued last; None for a run without phases."""
    phases: tuple[PlannedPhase, ...] = ()
    """All phases of the run, in order."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunPlan:
        """Read the content of config.json. Raises KeyError or TypeError if it has other fields."""
        config, phase = content["config"], content.get("phase")
        return cls(
            num_ranks=content.get("number_of_ranks", 1),
            max_steps=config["max_steps"],
            evaluate_every_steps=config["evaluation"]["every_steps"],
            num_evaluation_ranks=config["parallel"]["num_evaluation_ranks"],
            target_lddt_ca=config["evaluation"]["target_lddt_ca"],
            phase=None if phase is None else PhaseRecord.from_json(phase),
            phases=tuple(PlannedPhase.from_json(entry) for entry in config.get("phases", ())),
        )

    @property
    def last_step(self) -> int:
        """The step after which the run ends at the latest.

        An earlier phase may have ended before its last step, which makes it less than max_steps.
        """
        if self.phase is None:
            return self.max_steps
        return self.phase.last_step + sum(p.steps for p in self.phases[self.phase.number :])

    @property
    def final_lddt_ca(self) -> float:
        """The score that the run should reach at its end."""
        in_phase = self.phases[-1].final_lddt_ca if self.phases else None
        return in_phase or self.target_lddt_ca

    @property
    def planned_phase(self) -> PlannedPhase | None:
        """The current phase as the preset declares it; None if it is unknown."""
        if self.phase is None or self.phase.number > len(self.phases):
            return None
        return self.phases[self.phase.number - 1]

    @property
    def next_phase(self) -> PlannedPhase | None:
        """The phase after the current one; None if there is none."""
        if self.phase is None or self.phase.number >= len(self.phases):
            return None
        return self.phases[self.phase.number]


def describe_step(step: int, plan: RunPlan | None) -> str:
    """Return the step, the number of steps and the percentage."""
    if plan is None:
        return f"{step} of unknown"
    return f"{step} of {plan.last_step}{_percentage(step, plan.last_step)}"


def describe_phase(step: int, plan: RunPlan | None) -> str | None:
    """Return the name of the phase, its position and its progress; None without phases."""
    if plan is None or plan.phase is None:
        return None
    phase = plan.phase
    done, steps = max(0, step - phase.steps_before), phase.last_step - phase.steps_before
    return f"{phase.title}, step {done} of {steps} of the phase{_percentage(done, steps)}"


def describe_condition(plan: RunPlan | None, evaluations: Sequence[EvaluationReport]) -> str | None:
    """Return end and condition of the phase, and its best score so far; None without phases."""
    if plan is None or plan.phase is None:
        return None
    first = plan.phase.steps_before
    scores = [(e.lddt_ca, -e.step) for e in evaluations if e.step > first]
    best = "no evaluation yet"
    if scores:
        score, step = max(scores)
        best = f"best so far {score:.4f} after step {-step}"
    planned = plan.planned_phase
    return f"{(planned and planned.condition) or 'none'} ({best})"


def describe_time_left(
    plan: RunPlan | None,
    steps: Sequence[StepReport],
    evaluations: Sequence[EvaluationReport],
    *,
    includes_run: bool = False,
) -> str | None:
    """Return the time to the last step of the phase, or None if the pace is unknown.

    The pace is that of the recent steps of the phase and of the last evaluation.

    includes_run: whether to add the time to the end of the run, which is known only if the later
        phases have the same pace.
    """
    if plan is None:
        return None
    first = 0 if plan.phase is None else plan.phase.steps_before
    recent = [step.step_time_seconds for step in steps if step.step > first][-RECENT_STEPS:]
    if not recent:
        return None
    per_step = math.fsum(recent) / len(recent)
    if evaluations and plan.num_evaluation_ranks == 0:
        per_step += evaluations[-1].seconds / plan.evaluate_every_steps

    def time_to(last_step: int) -> timedelta:
        return timedelta(seconds=round(max(0, last_step - steps[-1].step) * per_step))

    if plan.phase is None or plan.phase.last_step == plan.last_step:
        return (
            f"at most {time_to(plan.last_step)} to step {plan.last_step} "
            f"({per_step:.3g} s per step)"
        )
    text = (
        f"at most {time_to(plan.phase.last_step)} to step {plan.phase.last_step}, "
        f"the end of the phase ({per_step:.3g} s per step)"
    )
    if includes_run:
        text += (
            f"; {time_to(plan.last_step)} to step {plan.last_step}, the end of the run, if later "
            "phases are as fast"
        )
    return text


def _percentage(done: int, total: int) -> str:
    """Return " (12 %)", rounded down, so that 100 % is the end."""
    return f" ({100 * done // total} %)" if total else ""
