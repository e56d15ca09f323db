"""A stretch of optimizer steps, with the figures of each read one step late."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from openfold_opt.loader.batch import LoadedBatch
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.train.observer import RunObserver, StepReport
from openfold_opt.train.step import MicroBatch, StepMetrics, StepResult


class NonFiniteError(RuntimeError):
    """A loss term of non-zero weight, or the gradient norm, is not a number; names step, terms and samples.

    step: the optimizer step, counted from 1; None if the message alone knows it. samples: by training
    rank, the samples whose loss is not a number.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int | None = None,
        samples: Mapping[int, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.samples = dict(samples or {})


class StepRunner(Protocol):
    """TrainStep, or the graphs of it."""

    def run(
        self, micro_batches: Iterable[MicroBatch], *, step: int, num_recycling_iterations: int
    ) -> StepResult: ...


@dataclass(frozen=True, kw_only=True)
class LaunchedStep:
    """A step whose figures were not read yet."""

    result: StepResult
    started: float
    """time.perf_counter() before its first batch was asked for."""
    data_wait_seconds: float
    queue_depth: int
    reorder_distance: int


@dataclass(kw_only=True, eq=False)
class TrainingInterval:
    """Feeds the training step from the loader, reports every step, and stops the run when figures are not finite."""

    train_step: StepRunner
    batches: Iterator[LoadedBatch]
    """Micro-batches of this rank on its device, from the first step to be run on."""
    mark_consumed: Callable[[LoadedBatch], None]
    """Told of each micro-batch whose step was launched."""
    accumulation: int
    samples_per_step: int
    """Global batch."""
    recycling: Callable[[int], int]
    """Passes without gradient of a step, counted from 0."""
    training_ranks: AxisGroup
    observer: RunObserver
    note: Callable[..., None]
    """Told what this rank does (doing=...) at which step (step=...)."""
    between_steps: Callable[[], None]
    """Called before each step, on every rank."""
    data_wait_seconds: float = 0.0
    """So far, in all."""
    warned_terms: set[str] = field(default_factory=set)

    def run(self, *, first_step: int, last_step: int) -> tuple[int, tuple[str, ...]]:
        """Do steps first_step + 1 .. last_step (counted from 1), reports included, or fewer if a signal was heard.

        Returns the last step done, and the signals, alike on every rank.
        """
        launched: LaunchedStep | None = None
        step, signals = first_step, ()
        while step < last_step and not signals:
            step += 1
            self.between_steps()
            started, waited = time.perf_counter(), self.data_wait_seconds
            loaded: list[LoadedBatch] = []
            result = self.train_step.run(
                self._micro_batches(step, loaded),
                step=step,
                num_recycling_iterations=self.recycling(step - 1),
            )
            for batch in loaded:
                self.mark_consumed(batch)
            if launched is not None:
                signals = self._report(launched, ended=started)
            launched = LaunchedStep(
                result=result,
                started=started,
                data_wait_seconds=self.data_wait_seconds - waited,
                queue_depth=min(batch.queue_depth for batch in loaded),
                reorder_distance=max(batch.reorder_distance for batch in loaded),
            )
        if launched is not None:
            metrics_read = launched.result.read()
            signals += self._report(launched, ended=time.perf_counter(), metrics=metrics_read)
        return step, tuple(dict.fromkeys(signals))

    def _micro_batches(self, step: int, taken: list[LoadedBatch]) -> Iterator[MicroBatch]:
        """The micro-batches of a step on the device; `taken` gets them as they came."""
        for _ in range(self.accumulation):
            asked = time.perf_counter()
            self.note(activity="waiting for data", step=step)
            loaded = next(self.batches)
            self.note(activity="training")
            self.data_wait_seconds += time.perf_counter() - asked
            taken.append(loaded)
            if loaded.step != step - 1:
                raise RuntimeError(
                    f"the loader is at step {loaded.step}, the training at step {step - 1}"
                )
            yield MicroBatch(
                features=FeatureBatch.from_features(loaded.features),
                slots=loaded.slots,
                sample_ids=tuple(
                    f"{chain_id} (seed {seed})"
                    for chain_id, seed in zip(loaded.chain_ids, loaded.sample_seeds, strict=True)
                ),
            )

    def _report(
        self, launched: LaunchedStep, *, ended: float, metrics: StepMetrics | None = None
    ) -> tuple[str, ...]:
        """Tell the observer of a step; returns the signals that came with it."""
        metrics = metrics if metrics is not None else launched.result.read()
        if not metrics.is_applied:
            raise self._not_finite(launched.result, metrics)
        self._warn_of_idle_terms(metrics)
        self.observer.step(
            StepReport(
                step=metrics.step,
                samples_seen=metrics.step * self.samples_per_step,
                num_recycling_iterations=metrics.num_recycling_iterations,
                loss=metrics.loss,
                terms=metrics.terms,
                gradient_norm=metrics.gradient_norm,
                learning_rate=metrics.learning_rate,
                step_time_seconds=ended - launched.started,
                data_wait_seconds=launched.data_wait_seconds,
                queue_depth=launched.queue_depth,
                reorder_distance=launched.reorder_distance,
            )
        )
        return metrics.stop_flags

    def _warn_of_idle_terms(self, metrics: StepMetrics) -> None:
        """The step was applied, so a term that is not finite has weight zero: say so once per term."""
        for name, value in metrics.terms.items():
            if not math.isfinite(value) and name not in self.warned_terms:
                self.warned_terms.add(name)
                self.observer.warning(
                    f"loss term {name} of weight zero is {value} at step {metrics.step}; training goes on"
                )

    def _not_finite(self, result: StepResult, metrics: StepMetrics) -> NonFiniteError:
        """One error for all ranks: every rank sees the same flag, so every rank comes here."""
        by_rank = dict(enumerate(gather_objects(_broken_samples(result), self.training_ranks)))
        found = [
            f"sample {sample_id}: {why}"
            for broken in by_rank.values()
            for sample_id, why in broken.items()
        ]
        what = (
            "; ".join(found)
            if found
            else f"the gradient norm is {metrics.gradient_norm}, all terms are finite"
        )
        return NonFiniteError(
            f"step {metrics.step} ({metrics.num_recycling_iterations} passes without gradient) is not finite: {what}. "
            f"Samples of this rank: {', '.join(result.sample_ids)}. No weight was changed by it. The same command resumes from the newest "
            "checkpoint, if there is one, and comes here again: leave the sample out of the data, or start another directory and seed",
            step=metrics.step,
            samples={rank: tuple(broken) for rank, broken in by_rank.items() if broken},
        )


def _broken_samples(result: StepResult) -> dict[str, str]:
    """For each sample of this rank whose weighted loss is not finite: its name and its terms that are not."""
    found = {}
    for sample_id, row in zip(result.sample_ids, result.local_terms.tolist(), strict=True):
        *terms, weighted = row
        if math.isfinite(weighted):
            continue
        broken = [
            f"{name} = {value}"
            for name, value in zip(result.term_names, terms)
            if not math.isfinite(value)
        ]
        found[sample_id] = ", ".join(broken) or f"weighted sum = {weighted}"
    return found
