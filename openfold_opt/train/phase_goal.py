"""When a phase ends, and with which outcome."""

from __future__ import annotations

from openfold_opt.train.checkpoint.run_state import PhaseProgress
from openfold_opt.train.phases import Phase

SUCCESS, ABORTED, PHASE_COMPLETE = "success", "aborted", "phase complete"
"""Outcomes of a run, or of a process that trains only some of its phases: the last phase ended as
required, the steps were used up before, or another phase follows."""
CONDITION_FAILED = "condition failed"
"""Outcome of a phase that did not reach the score that it requires."""


class PhaseGoal:
    """The last step, the final score and the condition of a phase.

    Args:
        phase: the phase.
        progress: its progress when this process started to train it.
    """

    def __init__(self, phase: Phase, progress: PhaseProgress) -> None:
        self._phase = phase
        self._steps_before = progress.steps_before
        self._full_step = progress.steps_before + phase.settings.steps
        self.last_step = min(self._full_step, phase.config.max_steps)
        """Step of the run after which the phase ends at the latest."""
        self.best_lddt_ca = progress.best_lddt_ca
        """Highest score so far; None: there is none. Known on the ranks that get the scores."""

    def add_score(self, lddt_ca: float, step: int) -> str | None:
        """Record a score. Return the outcome of the phase if the score ends it, else None."""
        self.best_lddt_ca = max(lddt_ca, self.best_lddt_ca or 0.0)
        if not self.is_condition_met(step):
            return CONDITION_FAILED
        end = self._phase.settings.end_lddt_ca
        return self._completed() if end is not None and lddt_ca >= end else None

    def is_condition_met(self, step: int) -> bool:
        """Return whether training may continue after an evaluated step."""
        required = self._phase.settings.required_lddt_ca
        return required is None or step < self._deadline() or (self.best_lddt_ca or 0.0) >= required

    def outcome_after_steps(self, step: int) -> str:
        """Return the outcome of a phase that no score ended, after its last step."""
        ends_by_score = self._phase.settings.end_lddt_ca is not None
        if step < self._full_step or (self._phase.is_last and ends_by_score):
            return ABORTED
        return self._completed()

    def describe_failure(self, step: int) -> str:
        """Return why the condition is not met after a step, and what to do."""
        best = "none" if self.best_lddt_ca is None else f"{self.best_lddt_ca:.4f}"
        return (
            f"{self._phase.title}: the best lDDT-Ca after step {step} is {best}, expected at least "
            f"{self._phase.settings.required_lddt_ca} by step {self._deadline()}. The checkpoint "
            f"of step {step} is complete. The weights have diverged or learn too slowly: start a "
            "run with another learning rate or seed in another output directory, or continue this "
            "one with a lower required_lddt_ca or a later required_by_step"
        )

    def _completed(self) -> str:
        return SUCCESS if self._phase.is_last else PHASE_COMPLETE

    def _deadline(self) -> int:
        """Return the step of the run whose evaluation decides about the condition."""
        settings = self._phase.settings
        return self._steps_before + (settings.required_by_step or settings.steps)
