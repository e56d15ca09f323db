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


def draw_module_times(modules: dict[str, dict[str, float]], path: Path) -> None:
    """Time of a step by module, forward and backward side by side, longest first; modules that have parts are left to their parts."""
    parts = {name for name in modules if not any(other.startswith(name + ".") for other in modules)}
    names = sorted(parts, key=lambda name: sum(modules[name].values()))
    figure = Figure(figsize=(8, 0.8 + 0.24 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    forward = [1e3 * modules[name]["forward"] for name in names]
    axes.barh(names, forward, label="forward")
    axes.barh(names, [1e3 * modules[name]["backward"] for name in names], left=forward, label="backward")
    axes.set_xlabel("ms of a step, all blocks together")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=130)
