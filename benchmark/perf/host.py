"""`perf host`: what the host launches in a step of the MLCommons reference, and its time.

Without CUDA graphs, a GPU waits where the host is slower. The planner takes the launches, and what
one in a model takes more than one in a loop over tensors (benchmark/plan/step_model.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.mlcommons_reference import Reference
from benchmark.perf.tools.options import add_count, add_reference, checked_reference
from benchmark.perf.tools.timing_stats import TimingStats, table
from openfold_opt.loader.config import DataConfig
from openfold_opt.train.synthetic_features import synthetic_batch

_TINY = DataConfig(crop_size=4, max_msa_clusters=5, max_extra_msa=2)
"""So small that a CPU takes no longer for the work of an operation than for launching it."""
_MODEL = ("forward pass", "recycling iteration", "losses", "backward pass")
_LOOPS = ("Adam", "average")
"""Parts that launch one operation at a time for each tensor, whichever the version of PyTorch."""


@dataclass(frozen=True, kw_only=True)
class HostMetrics:
    """Launches and times of each part of a step of the reference at full depth."""

    parameters: int
    """Tensors of the model."""
    launches: dict[str, int]
    """Part -> operations that launch a kernel on a GPU.

    A recycling iteration is a pass without gradient. The backward pass has the recomputation of all
    blocks; "backward pass without recomputation" is counted, but not timed.
    """
    views: dict[str, int]
    """Part -> operations that only make a view."""
    seconds: dict[str, list[float]]
    """Part -> its times on one core, with eight channels and four residues."""

    def launch_seconds(self, parts: Sequence[str]) -> float:
        """Return the median time of some parts / their launches."""
        seconds = sum(statistics.median(self.seconds[part]) for part in parts)
        return seconds / sum(self.launches[part] for part in parts)


METRICS = HostMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_count(parser, "--repeats", default=10, what="timed steps")
    add_reference(parser, what=", whose step is counted and timed; required")


def measure(args: argparse.Namespace) -> HostMetrics:
    """Count the operations of a step, then time its parts."""
    if args.repeats < 1:
        raise BenchmarkError(f"--repeats {args.repeats}: expected at least 1")
    reference = checked_reference(args)
    if reference is None:
        raise BenchmarkError("--reference is missing: the folder openfold of mlcommons/hpc")
    return measure_reference(reference, repeats=args.repeats)


def measure_reference(reference: Reference, *, repeats: int) -> HostMetrics:
    """Count and time a step of a checkout."""
    batch = synthetic_batch(_TINY, batch_size=1, num_passes=2)
    with tempfile.TemporaryDirectory(prefix="perf-host-") as folder:
        features = Path(folder, "features.npz")
        np.savez(features, **{name: value.numpy() for name, value in batch.items()})
        return reference.host(features, HostMetrics, repeats=repeats)


def report(metrics: HostMetrics) -> str:
    """Format a row for each part, and the time of a launch."""
    rows = []
    for part, launches in metrics.launches.items():
        seconds = metrics.seconds.get(part)
        time = "" if seconds is None else TimingStats.of(seconds).text(1, scale=1e3)
        rows.append([part, f"{launches:,}", f"{metrics.views[part]:,}", time])
    header = ["part of a step", "launches", "views", "ms, median (least to most)"]
    return f"{table(rows, header=header)}\n\n{headline(metrics)}"


def headline(metrics: HostMetrics) -> str:
    """Return one line with the times of a launch."""
    model, loops = (1e6 * metrics.launch_seconds(parts) for parts in (_MODEL, _LOOPS))
    return (
        f"MLCommons reference on one core: {model:.1f} us for a launch of the model, "
        f"{loops:.1f} us for one of a loop over {metrics.parameters:,} tensors"
    )
