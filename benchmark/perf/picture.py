"""Pictures of measurements."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_preparation_times(samples: dict[str, Any], path: Path) -> None:
    """Preparation times of training samples, sorted, on a logarithmic scale: the heavy tail, as in Figure 4 of the ScaleFold paper."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    chains = samples["training"].values()
    for side, label in (("reference", "reference"), ("ours", "openfold-opt")):
        times = sorted(statistics.median(chain[side]) for chain in chains if side in chain)
        if times:
            axes.step(range(1, len(times) + 1), times, where="mid", label=label)
    axes.set_yscale("log")
    axes.set_xlabel("training samples, one per chain, sorted by time")
    axes.set_ylabel("preparation time on one core, s")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=130)
