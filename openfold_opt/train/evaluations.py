"""How a run gets its evaluations: by stopping to make them, or from other ranks while it trains on (async_evaluations.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.data_source import OpenData
from openfold_opt.train.evaluation import Evaluator, mean_score
from openfold_opt.train.observer import EvaluationReport, RunObserver
from openfold_opt.train.training_interval import NonFiniteError


@dataclass(frozen=True, kw_only=True)
class EvaluationPoint:
    """When an evaluation was due."""

    step: int
    epoch_num: int


class Evaluations(Protocol):
    """Evaluates the averaged weights of the moment it is asked."""

    num_waits: int
    """How often training had to wait for an evaluation to be taken over."""
    wait_seconds: float
    """How long training waited for evaluations, in all."""
    is_asked_to_stop: bool
    """Whether a rank that only evaluates was asked to stop the run."""

    def ask(self, point: EvaluationPoint) -> None:
        """Begin an evaluation of the weights as they are now, on every rank that trains."""

    def finished(self) -> Iterable[EvaluationReport]:
        """Reports that came in since the last call, on the first rank (on all, if they are known everywhere)."""

    def drain(self) -> Iterable[EvaluationReport]:
        """As finished, once all that were asked for are there."""

    def close(self, *, preempted: bool) -> None:
        """No more will be asked for; what is still under way is dropped. preempted: as the run was asked to stop."""


class InlineEvaluation:
    """The ranks that train stop to evaluate; all know the report."""

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
        self.is_asked_to_stop = False

    def ask(self, point: EvaluationPoint) -> None:
        self._observer.evaluation_start(step=point.step, epoch_num=point.epoch_num)
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
                epoch_num=point.epoch_num,
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
        """Nothing is ever under way."""
