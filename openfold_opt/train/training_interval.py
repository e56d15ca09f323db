"""Training between two evaluations. The metrics of each step are read one step late."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from openfold_opt.loader.batch import LoadedBatch, ModelFeatures, name_samples
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.observer import RunObserver, StepReport
from openfold_opt.train.step import MicroBatch
from openfold_opt.train.step_result import StepMetrics, StepResult


class StepRunner(Protocol):
    """TrainStep or StepGraphs."""

    def run(
        self,
        micro_batches: Iterable[MicroBatch],
        *,
        step: int,
        learning_rate: float,
        num_recycling_iterations: int,
    ) -> StepResult: ...


@dataclass(frozen=True, kw_only=True)
class LaunchedStep:
    """A step whose metrics have not been read yet."""

    result: StepResult
    started: float
    """time.perf_counter() before its first batch was requested."""
    data_wait_seconds: float
    queue_depth: int
    reorder_distance: int


@dataclass(kw_only=True, eq=False)
class TrainingInterval:
    """Runs training steps on batches of the loader, and reports every step.

    One object serves the whole run. Each call of `run` raises NonFiniteError if the loss or the
    gradient norm of a step is not finite.
    """

    train_step: StepRunner
    batches: Iterator[LoadedBatch[ModelFeatures]]
    """Micro-batches of this rank on its device, starting with those of the first step to run."""
    mark_consumed: Callable[[LoadedBatch[ModelFeatures]], None]
    """Called for each micro-batch after its step was launched."""
    accumulation: int
    samples_seen: Callable[[int], int]
    """Returns the number of samples of the run after a step."""
    learning_rate: Callable[[int], float]
    """Returns the learning rate of a step."""
    num_recycling_iterations: Callable[[int], int]
    """Returns the number of recycling iterations of a step."""
    training_ranks: AxisGroup
    observer: RunObserver
    note: Callable[..., None]
    """Called with what this rank does, and at which step, for the heartbeat."""
    before_step: Callable[[], None]
    """Called before each step, on every rank."""
    data_wait_seconds: float = 0.0
    """Total so far."""
    warned_terms: set[str] = field(default_factory=set)
    """Names of the loss terms about which a warning was sent."""
    last_gradient_norm: float | None = None
    """Of the last step that was reported; None before the first one."""

    def run(self, *, first_step: int, last_step: int) -> tuple[int, tuple[str, ...]]:
        """Run and report steps first_step .. last_step, counted from 1.

        A stop flag ends the interval early. Returns the last step and the stop flags, which are
        the same on every rank.
        """
        launched: LaunchedStep | None = None
        stop_flags: tuple[str, ...] = ()
        step = first_step - 1
        while step < last_step and not stop_flags:
            step += 1
            self.before_step()
            started, waited = time.perf_counter(), self.data_wait_seconds
            loaded: list[LoadedBatch[ModelFeatures]] = []
            result = self.train_step.run(
                self._micro_batches(step, loaded),
                step=step,
                learning_rate=self.learning_rate(step),
                num_recycling_iterations=self.num_recycling_iterations(step),
            )
            for batch in loaded:
                self.mark_consumed(batch)
            if launched is not None:
                stop_flags = self._report(launched, ended=started)
            launched = LaunchedStep(
                result=result,
                started=started,
                data_wait_seconds=self.data_wait_seconds - waited,
                queue_depth=min(batch.queue_depth for batch in loaded),
                reorder_distance=max(batch.reorder_distance for batch in loaded),
            )
        if launched is not None:
            # Read first: the end of the last step is when its metrics are available.
            metrics = launched.result.read()
            stop_flags += self._report(launched, ended=time.perf_counter(), metrics=metrics)
        return step, tuple(dict.fromkeys(stop_flags))

    def _micro_batches(
        self, step: int, taken: list[LoadedBatch[ModelFeatures]]
    ) -> Iterator[MicroBatch]:
        """Yield the micro-batches of a step, and append the loaded batches to `taken`."""
        for _ in range(self.accumulation):
            requested = time.perf_counter()
            self.note(activity="waiting for data", step=step)
            loaded = next(self.batches)
            self.note(activity="training")
            self.data_wait_seconds += time.perf_counter() - requested
            taken.append(loaded)
            if loaded.step != step:
                raise RuntimeError(
                    f"the loader is at step {loaded.step}, the training at step {step}"
                )
            yield MicroBatch(
                features=FeatureBatch.from_features(loaded.features),
                slots=loaded.slots,
                sample_ids=name_samples(loaded.chain_ids, loaded.sample_seeds, loaded.data_sets),
            )

    def _report(
        self, launched: LaunchedStep, *, ended: float, metrics: StepMetrics | None = None
    ) -> tuple[str, ...]:
        """Send the report of a step to the observer, and return the stop flags of the step."""
        metrics = metrics if metrics is not None else launched.result.read()
        if not metrics.is_applied:
            raise self._not_finite_error(launched.result, metrics)
        self._warn_about_unused_terms(metrics)
        self.last_gradient_norm = metrics.gradient_norm
        self.observer.step(
            StepReport(
                step=metrics.step,
                samples_seen=self.samples_seen(metrics.step),
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

    def _warn_about_unused_terms(self, metrics: StepMetrics) -> None:
        """Warn once per loss term that is not finite.

        The step was applied, so the term has weight zero.
        """
        for name, value in metrics.terms.items():
            if not math.isfinite(value) and name not in self.warned_terms:
                self.warned_terms.add(name)
                self.observer.warning(
                    f"loss term {name} of weight zero is {value} at step {metrics.step}; "
                    "training continues"
                )

    def _not_finite_error(self, result: StepResult, metrics: StepMetrics) -> NonFiniteError:
        """Return the same error on all ranks. Every rank has the same flag, so all call this."""
        gathered = gather_objects(
            (_non_finite_samples(result), len(result.sample_ids)), self.training_ranks
        )
        by_rank = {rank: reasons for rank, (reasons, _) in enumerate(gathered)}
        num_samples = sum(number for _, number in gathered)
        samples = [
            f"sample {sample_id}: {reason}"
            for reasons in by_rank.values()
            for sample_id, reason in reasons.items()
        ]
        cause = (
            "; ".join(samples)
            if samples
            else f"the gradient norm is {metrics.gradient_norm}, all terms are finite"
        )
        state = f"The learning rate is {metrics.learning_rate:.3g}"
        if self.last_gradient_norm is not None:
            state += f", the gradient norm of the step before was {self.last_gradient_norm:.3g}"
        remedy = (
            "All samples of the step are affected, so the weights have probably diverged: start a "
            "run with a lower learning rate and another output directory"
            if len(samples) == num_samples > 1
            else "The same command would resume from the newest checkpoint and fail at this step "
            "again: remove the sample from the data, or start a run with another output directory "
            "and seed"
        )
        return NonFiniteError(
            f"step {metrics.step} ({metrics.num_recycling_iterations} recycling iterations) is not "
            f"finite: {cause}. Samples of this rank: {', '.join(result.sample_ids)}. The step did "
            f"not change the weights. {state}. {remedy}",
            step=metrics.step,
            samples={rank: tuple(reasons) for rank, reasons in by_rank.items() if reasons},
        )


def _non_finite_samples(result: StepResult) -> dict[str, str]:
    """Return the samples of this rank whose weighted loss is not finite, with the reason."""
    reasons = {}
    for sample_id, row in zip(result.sample_ids, result.local_terms.tolist(), strict=True):
        *terms, weighted = row
        if math.isfinite(weighted):
            continue
        non_finite = [
            f"{name} = {value}"
            for name, value in zip(result.term_names, terms)
            if not math.isfinite(value)
        ]
        reasons[sample_id] = ", ".join(non_finite) or f"weighted sum = {weighted}"
    return reasons
