"""Plots of measurements. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from benchmark.perf.tools.module_times import ModuleTimes
from benchmark.replace_file import save_picture


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Create a figure of a size in inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def draw_preparation_times(seconds: Mapping[str, Sequence[float]], path: Path) -> None:
    """Plot sorted preparation times of training samples on a logarithmic scale.

    Shows the few samples that take much longer, as Figure 4 of the ScaleFold paper does.

    Args:
        seconds: Label of a curve -> time of each chain.
        path: Image to write.
    """
    figure, axes = _new_figure(7, 4)
    for label, times in seconds.items():
        if times:
            axes.step(range(1, len(times) + 1), sorted(times), where="mid", label=label)
    axes.set_yscale("log")
    axes.set_xlabel("training samples, one per chain, sorted by time")
    axes.set_ylabel("preparation time on one core, s")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    save_picture(figure, path)


def draw_module_times(modules: dict[str, ModuleTimes], path: Path) -> None:
    """Plot the time of a step by module, forward and backward, longest first.

    Only modules without submodules in `modules` are shown, so that no time is counted twice.
    """
    parts = {name for name in modules if not any(other.startswith(name + ".") for other in modules)}
    names = sorted(parts, key=lambda name: modules[name].both)
    figure, axes = _new_figure(8, 0.8 + 0.24 * len(names))
    forward = [1e3 * modules[name].forward for name in names]
    axes.barh(names, forward, label="forward")
    backward = [1e3 * modules[name].backward for name in names]
    axes.barh(names, backward, left=forward, label="backward")
    axes.set_xlabel("ms per step, sum over all blocks")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(loc="lower right")
    save_picture(figure, path)
