"""Samples to a target, and the time of a run from its steps, evaluations and start."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from benchmark.results.reference_samples import reference_samples

SAMPLES_TO_090 = {128: 10.24e6, 256: 13.44e6}
"""Batch -> samples to lDDT-Ca 0.9 from random weights.

128: BioNeMo's OpenFold reached 0.9003 after 80,000 steps. 256: ScaleFold's two phases, 5,000 steps
of 128 and 50,000 of 256 (recalled). Each is one training, so there is no spread.
"""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples to a target at one batch size."""

    target: float | None
    """lDDT-Ca; None: unknown, the number of steps is given."""
    batch: int
    runs: tuple[float, ...]
    """One number for each run of the sources, sorted; several show the spread."""
    is_extrapolated: bool
    """Whether the batch is outside of what the sources have."""

    @property
    def mean(self) -> float:
        """Mean without the smallest and the largest if there are at least three."""
        return statistics.fmean(self.runs[1:-1] if len(self.runs) >= 3 else self.runs)


def samples_to_080(batch: int) -> Samples:
    """Return the samples from the benchmark's checkpoint to 0.8: reference convergence points.

    The sorted runs at 128 and 256 are interpolated, and extrapolated above 256. Below 128 the point
    of 128 applies, as the RCP checker has it.
    """
    points = reference_samples()
    low, high = min(points), max(points)
    share = max(0.0, (batch - low) / (high - low))
    runs = [small + share * (large - small) for small, large in zip(points[low], points[high])]
    return Samples(
        target=0.8,
        batch=batch,
        runs=tuple(sorted(runs)),
        is_extrapolated=not low <= batch <= high,
    )


def samples_to_090(batch: int) -> Samples:
    """Return the samples from random weights to 0.9."""
    (low, few), (high, many) = sorted(SAMPLES_TO_090.items())
    share = max(0.0, (batch - low) / (high - low))
    return Samples(
        target=0.9,
        batch=batch,
        runs=(few + share * (many - few),),
        is_extrapolated=not low <= batch <= high,
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a run evaluates."""

    every_steps: int
    seconds: float
    """Time of one evaluation."""
    is_concurrent: bool
    """Whether ranks of their own evaluate."""
    snapshot_seconds: float = 1.2
    """Time that training stops to hand over a snapshot; the median of NVIDIA's and HPE's logs."""


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Seconds of a run, by part."""

    steps: float
    evaluation: float
    """Time in which training waits for evaluation, and the last result."""
    start: float

    @property
    def total(self) -> float:
        """Seconds from run_start to run_stop."""
        return self.steps + self.evaluation + self.start


def run_time(
    *, samples: float, batch: int, step_seconds: float, evaluation: Evaluation, start: float
) -> RunTime:
    """Return the time of a run that needs a number of samples.

    A concurrent evaluation that takes longer than the training between two evaluations makes
    training wait.
    """
    number = max(1, math.ceil(samples / batch / evaluation.every_steps - 1e-9))
    between = evaluation.every_steps * step_seconds
    if evaluation.is_concurrent:
        late = max(0.0, evaluation.seconds - between)
        waits = (number - 1) * (evaluation.snapshot_seconds + late) + evaluation.seconds
    else:
        waits = number * evaluation.seconds
    return RunTime(steps=number * between, evaluation=waits, start=start)
