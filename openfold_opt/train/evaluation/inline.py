"""Evaluation during a run: the interface, and evaluation on the training ranks.

evaluation/remote.py has the implementation in which other ranks evaluate while training continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.data_source import OpenData
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.evaluation.evaluator import Evaluator, mean_score
from openfold_opt.train.observer import EvaluationReport, RunObserver


@dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """The point of a run at which an evaluation is due."""

    step: int
    samples_at_end: int
    """As in EvaluationReport."""


class Evaluations(Protocol):
    """Evaluates the current averaged weights on request."""

    num_waits: int
    """How often training waited because the evaluation queue was full."""
    wait_seconds: float
    """Total time that training waited for evaluations."""
    is_stop_requested: bool
    """Whether an evaluation rank received a request to stop the run."""

    def request(self, point: EvaluationPoint) -> None:
        """Start an evaluation of the current weights. Every training rank calls this."""

    def finished(self) -> Iterable[EvaluationReport]:
        """Return the reports that are new since the last call.

        Only the first rank must return them; the others may return none.
        """

    def drain(self) -> Iterable[EvaluationReport]:
        """Wait for all requested evaluations, then return as `finished` does."""

    def close(self, *, preempted: bool) -> None:
        """End evaluation and drop evaluations in progress.

        preempted: whether the run stops on request.
        """


class InlineEvaluation:
    """Evaluates on the training ranks, which wait for it. All of them know the reports."""

    def __init__(
        self,
        evaluator: Evaluator,
        data: OpenData,
        training_ranks: AxisGroup,
        *,
        observer: RunObserver,
        note: Callable[..., None],
    ) -> None:
        self._evaluator = evaluator
        self._data = data
        self._training_ranks = training_ranks
        self._observer = observer
        self._note = note
        self._reports: list[EvaluationReport] = []
        self.num_waits = 0
        self.wait_seconds = 0.0
        self.is_stop_requested = False

    def request(self, point: EvaluationPoint) -> None:
        self._observer.evaluation_start(step=point.step, samples_at_end=point.samples_at_end)
        self._note(activity="evaluating")
        started = time.perf_counter()
        try:
            scores = self._evaluator.run(self._data, self._training_ranks, note=self._note)
        except NonFiniteError as error:
            message = f"evaluation after step {point.step}: {error}"
            raise NonFiniteError(message, step=point.step) from error
        seconds = time.perf_counter() - started
        self.wait_seconds += seconds
        self._reports.append(
            EvaluationReport(
                step=point.step,
                samples_at_end=point.samples_at_end,
                lddt_ca=mean_score(scores),
                chains=scores,
                seconds=seconds,
            )
        )

    def finished(self) -> Iterable[EvaluationReport]:
        reports, self._reports = self._reports, []
        return reports

    def drain(self) -> Iterable[EvaluationReport]:
        return self.finished()

    def close(self, *, preempted: bool) -> None:
        """Do nothing: no evaluation is ever in progress."""
