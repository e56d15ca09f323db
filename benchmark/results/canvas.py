"""Matplotlib axes, without pyplot and its global state."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

NUM_COLORS = 10


def new_axes() -> tuple[Figure, Axes]:
    """Create a figure of 9 x 6 inches and its axes."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3, which="both")
    return figure, axes


def color(i: int) -> tuple[float, ...]:
    """Return the RGBA color of set i, the same in every plot."""
    return matplotlib.colormaps["tab10"](i % NUM_COLORS)


def use_log_scale(axes: Axes, which: str) -> None:
    """Make the "x" or "y" axis logarithmic, with labels such as 20, not 2 x 10^1."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_name(text: str) -> str:
    """Escape a name for a legend.

    Matplotlib interprets text between two $ as a formula, and hides names that begin with _.
    """
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def add_legend(axes: Axes) -> None:
    """Add a legend below the axes, where it hides no data."""
    if axes.get_legend_handles_labels()[0]:
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
