"""Reference convergence points (RCP): how many samples the reference needs, and mlperf-logging's verdict on a set of runs.

The points, 20 runs of the reference at each of two batch sizes, are in mlperf-logging's own package, ruleset hpc 3.0.0.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from mlperf_logging.rcp_checker import rcp_checker

from benchmark.check import RULESET, USAGE
from benchmark.results.run_log import BENCHMARK, RunLog

REQUIRED_RUNS = rcp_checker.submission_runs[USAGE][BENCHMARK]
PASS, NORMALISED, SHORT, NO_VERDICT = "passes", "passes, normalized", "falls short", "no verdict"


@dataclass(frozen=True, kw_only=True)
class ReferencePoint:
    """Samples to converge at one batch size."""

    batch: int
    samples: tuple[int, ...]
    """Of every run of the reference."""
    mean: float
    """Without the fastest and the slowest."""
    least: float
    """The lowest mean of a submission that the checker accepts."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the RCP checker says of a set of runs."""

    outcome: str
    """PASS, NORMALISED, SHORT or NO_VERDICT."""
    message: str
    """The checker's own words, or why it was not asked."""
    factor: float
    """The reported time is the trimmed mean times this; 1 if the runs needed as many samples as the reference, or more."""


@lru_cache(maxsize=1)
def reference_points() -> tuple[ReferencePoint, ...]:
    """In order of batch size."""
    checker = rcp_checker.RCP_Checker(USAGE, RULESET, BENCHMARK, verbose=False)
    return tuple(
        ReferencePoint(
            batch=record["BS"],
            samples=tuple(record["Epochs to converge"]),
            mean=float(record["RCP Mean"]),
            least=float(record["Min Epochs"]),
        )
        for record in sorted(checker.rcp_data.values(), key=lambda record: record["BS"])
    )


def reference_mean(batch: int) -> float | None:
    """Samples that the reference needs at this batch size.

    Between two points linearly interpolated; below the smallest, that one's, which a smaller batch may not beat; None above the
    largest, where whoever submits has to add a point.
    """
    points = reference_points()
    if batch > points[-1].batch:
        return None
    return float(
        np.interp(batch, [point.batch for point in points], [point.mean for point in points])
    )


def trimmed_mean(values: Sequence[float]) -> float | None:
    """Mean without the least and the greatest; None of fewer than three."""
    return statistics.fmean(sorted(values)[1:-1]) if len(values) >= 3 else None


def judge(runs: Sequence[RunLog]) -> Verdict:
    """The RCP checker's verdict on runs of one kind, asked as the package checker asks it (pruned points)."""
    if not all(run.has_closed_sample and run.target == 0.8 for run in runs):
        return Verdict(
            outcome=NO_VERDICT, message="not the closed division's model and target", factor=1.0
        )
    if len(runs) < REQUIRED_RUNS:
        return Verdict(
            outcome=NO_VERDICT, message=f"{len(runs)} of {REQUIRED_RUNS} runs", factor=1.0
        )
    with tempfile.TemporaryDirectory() as folder, _silence():
        # the checker wants files of a certain name, and may delete others beside them
        for i, run in enumerate(runs):
            shutil.copyfile(run.path, Path(folder, f"result_{i}.txt"))
        passed, message, factor = rcp_checker.check_directory(
            folder, USAGE, RULESET, False, False, rcp_pass="pruned_rcps"
        )
    factor = float(factor)
    outcome = (NORMALISED if factor > 1.0 else PASS) if passed else SHORT
    if message == "Insufficient convergence":
        outcome = NO_VERDICT
    return Verdict(outcome=outcome, message=message, factor=factor if passed else 1.0)


@contextmanager
def _silence() -> Iterator[None]:
    """The checker talks to the root logger, and gives it a handler if it has none."""
    logger = logging.getLogger()
    handlers, was_disabled = list(logger.handlers), logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was_disabled
        logger.handlers[:] = handlers
