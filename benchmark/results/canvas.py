"""Axes to draw on, without pyplot and its global state."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

NUM_COLOURS = 10


def new_axes() -> tuple[Figure, Axes]:
    """A picture of 9 x 6 inches."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3, which="both")
    return figure, axes


def color(i: int) -> tuple[float, ...]:
    """Of set i, the same in every picture."""
    return matplotlib.colormaps["tab10"](i % NUM_COLOURS)


def use_log_scale(axes: Axes, which: str) -> None:
    """which: "x" or "y". The numbers are plain: 20, not 2 x 10^1."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_name(text: str) -> str:
    """For a legend as it is: matplotlib would take what lies between two $ for a formula, and hide a name that begins with _."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def add_legend(axes: Axes) -> None:
    """Below the axes, where it hides nothing."""
    if axes.get_legend_handles_labels()[0]:
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
