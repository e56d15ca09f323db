"""Figures without the global state of pyplot, and their files."""

from __future__ import annotations

import io
import threading
import unicodedata
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

DOTS_PER_INCH = 200
DARK, GRAY, LIGHT = "#222222", "#6B6B6B", "#D0D0D0"
_FONT = "DejaVu Sans"
"""Comes with Matplotlib."""


_STYLE_LOCK = threading.Lock()
"""The settings of Matplotlib are global."""
P = ParamSpec("P")
R = TypeVar("R")


def in_default_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that draws: the user's settings of Matplotlib do not apply to it."""

    @wraps(draw)
    def decorated(*args: P.args, **kwargs: P.kwargs) -> R:
        with _STYLE_LOCK, matplotlib.style.context("default"):
            return draw(*args, **kwargs)

    return decorated


def new_figure(width: float, height: float) -> Figure:
    """Create a white figure; its size is in inches."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    # By default the file names the version of Matplotlib.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def write_heading(figure: Figure, title: str, line: str) -> None:
    """Write a title and a line below it at the top of a figure.

    Any text can be written: `$` does not start a formula, and characters that the font does not
    have are replaced. A text that is too long is cut.
    """
    texts = (
        (0.95, shorten(title, 64), {"fontsize": 13, "fontweight": "bold", "color": DARK}),
        (0.915, shorten(line, 110), {"fontsize": 9, "color": GRAY}),
    )
    for y, text, settings in texts:
        figure.text(0.025, y, drawable(text), parse_math=False, fontfamily=_FONT, **settings)


def shorten(text: str, max_characters: int) -> str:
    """Return a text, cut at its end if it is too long."""
    is_long = len(text) > max_characters
    return text[: max_characters - 1] + "\N{HORIZONTAL ELLIPSIS}" if is_long else text


def drawable(text: str) -> str:
    """Return a text with `?` for characters that the font does not have."""
    glyphs: Mapping[int, int] = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    return "".join(
        letter if ord(letter) in glyphs and unicodedata.category(letter)[0] != "C" else "?"
        for letter in text
    )


def style_axes(axes: Axes) -> None:
    """Apply the common style: small labels, and thin lines at the left and at the bottom."""
    axes.tick_params(labelsize=7, colors=DARK, width=0.6, length=2.5, pad=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor=DARK)


def add_title(axes: Axes, text: str) -> None:
    """Write the title of a panel above its left end."""
    axes.set_title(text, loc="left", fontsize=8.5, fontweight="bold", color=DARK, pad=5)


def add_label(axes: Axes, which: str, text: str) -> None:
    """Label the "x" or "y" axis."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(text, fontsize=7.5, color=DARK)
    axis.labelpad = 3


def write_note(axes: Axes, text: str) -> None:
    """Write a line in the middle of a panel without data."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.6, edgecolor=LIGHT)
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=8,
        color=GRAY,
    )
