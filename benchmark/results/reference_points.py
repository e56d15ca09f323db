"""Reference convergence points (RCP), and the RCP check.

The points are the samples that 20 runs of the MLCommons reference need at each of two batch sizes.
They are part of the mlperf-logging package, ruleset hpc 3.0.0.
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

from benchmark.mlperf.check import RULESET, USAGE
from benchmark.results.logged_run import BENCHMARK, LoggedRun

REQUIRED_RUNS = rcp_checker.submission_runs[USAGE][BENCHMARK]
"""Number of runs in a submission; with fewer, the RCP checker is not run."""
PASS, NORMALIZED, SHORT, NOT_CHECKED = "passes", "passes, normalized", "falls short", "no verdict"


@dataclass(frozen=True, kw_only=True)
class ReferencePoint:
    """Samples to converge at one batch size."""

    batch: int
    samples: tuple[int, ...]
    """Samples of every run of the MLCommons reference."""
    mean: float
    """Mean of `samples` without the fastest and the slowest run."""
    least: float
    """The lowest mean with which the checker accepts a submission."""


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """Result of the RCP checker for a set of runs."""

    outcome: str
    """PASS, NORMALIZED, SHORT or NOT_CHECKED."""
    message: str
    """Message of the checker, or why it was not run."""
    factor: float
    """The reported time is the trimmed mean times this factor.

    It is 1 if the runs needed at least as many samples as the MLCommons reference.
    """


@lru_cache(maxsize=1)
def reference_points() -> tuple[ReferencePoint, ...]:
    """Return the points in order of batch size."""
    checker = rcp_checker.RCP_Checker(USAGE, RULESET, BENCHMARK, verbose=False)
    # mlperf-logging calls the unit epochs; for this benchmark, they are samples.
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
    """Return the samples that the MLCommons reference needs at a batch size.

    Interpolates linearly between two points. Below the smallest batch, returns the samples of that
    batch. Returns None above the largest batch, where a submitter has to add a point.
    """
    points = reference_points()
    if batch > points[-1].batch:
        return None
    return float(
        np.interp(batch, [point.batch for point in points], [point.mean for point in points])
    )


def trimmed_mean(values: Sequence[float]) -> float | None:
    """Return the mean without the smallest and the largest value; None for fewer than three."""
    return statistics.fmean(sorted(values)[1:-1]) if len(values) >= 3 else None


def check_convergence(runs: Sequence[LoggedRun]) -> Convergence:
    """Run the RCP checker on a set of runs, as mlperf-logging's package checker does."""
    if not all(run.has_closed_sample and run.target == 0.8 for run in runs):
        return Convergence(
            outcome=NOT_CHECKED, message="not the closed division's model and target", factor=1.0
        )
    if len(runs) < REQUIRED_RUNS:
        return Convergence(
            outcome=NOT_CHECKED, message=f"{len(runs)} of {REQUIRED_RUNS} runs", factor=1.0
        )
    with tempfile.TemporaryDirectory() as folder, _silence():
        # The checker expects certain file names, and may delete other files in the folder.
        for i, run in enumerate(runs):
            shutil.copyfile(run.path, Path(folder, f"result_{i}.txt"))
        passed, message, factor = rcp_checker.check_directory(
            folder, USAGE, RULESET, False, False, rcp_pass="pruned_rcps"
        )
    factor = float(factor)
    outcome = (NORMALIZED if factor > 1.0 else PASS) if passed else SHORT
    if message == "Insufficient convergence":
        outcome = NOT_CHECKED
    return Convergence(outcome=outcome, message=message, factor=factor if passed else 1.0)


@contextmanager
def _silence() -> Iterator[None]:
    """Disable the root logger, which the checker uses and adds a handler to."""
    logger = logging.getLogger()
    handlers, was_disabled = list(logger.handlers), logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was_disabled
        logger.handlers[:] = handlers
