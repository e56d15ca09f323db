"""The panels next to the structure: pLDDT, predicted aligned error, alignment depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from openfold_opt.predict.confidence_classes import CLASSES, MAX_PLDDT
from openfold_opt.predict.pictures.canvas import (
    DARK,
    add_label,
    add_title,
    style_axes,
)
from openfold_opt.predict.pictures.pae_image import block_starts

ANGSTROM = "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}"
MAX_POINTS = 1500
"""A longer trace is drawn as mean, minimum and maximum of blocks of residues."""
_BAND_WHITE = 0.55
_LINE_COLOR = "#1F2D3D"


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """Values along a chain, thinned."""

    residues: np.ndarray
    """[n]: number of the residue in the middle of each block, from 1."""
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def thinned(values: np.ndarray, max_points: int = MAX_POINTS) -> Trace:
    """Return at most `max_points` points of a trace. NaN: no value."""
    starts = block_starts(len(values), max_points)
    stops = np.append(starts[1:], len(values))
    is_value = np.isfinite(values)
    counts = np.add.reduceat(is_value.astype(float), starts)
    counts[counts == 0] = np.nan
    sums = np.add.reduceat(np.where(is_value, values, 0.0), starts)
    return Trace(
        residues=(starts + stops - 1) / 2 + 1,
        mean=sums / counts,
        low=np.fmin.reduceat(values, starts),
        high=np.fmax.reduceat(values, starts),
    )


def draw_plddt(axes: Axes, plddt: np.ndarray) -> None:
    """Draw the pLDDT along the chain over bands in the colors of the classes."""
    style_axes(axes)
    add_title(axes, "pLDDT along the chain")
    limits = [*(item.lowest for item in CLASSES), MAX_PLDDT]
    for item, low, high in zip(CLASSES, limits[:-1], limits[1:]):
        color = np.array(to_rgb(item.color))
        axes.axhspan(
            low, high, facecolor=color + (1 - color) * _BAND_WHITE, edgecolor="none", zorder=0
        )
    draw_trace(axes, plddt.astype(np.float64))
    axes.set(ylim=(0.0, MAX_PLDDT), yticks=limits)
    set_residue_axis(axes, len(plddt))
    add_label(axes, "x", "Residue")
    add_label(axes, "y", "pLDDT")


def draw_trace(axes: Axes, values: np.ndarray) -> None:
    """Draw values along the chain as a line, with their range if the line is thinned."""
    trace = thinned(values)
    if len(values) > len(trace.mean):
        axes.fill_between(
            trace.residues, trace.low, trace.high, color=_LINE_COLOR, alpha=0.35, linewidth=0
        )
    axes.plot(
        trace.residues,
        trace.mean,
        color=_LINE_COLOR,
        linewidth=line_width(len(values)),
        # A marker shows a residue between two without a value.
        marker="." if len(values) <= 60 else None,
        markersize=3,
    )


def line_width(num_residues: int) -> float:
    """Return the width of the line of a trace, in points: a long trace is dense."""
    return 0.9 if num_residues <= 300 else 0.6


def draw_pae(axes: Axes, bar: Axes, image: np.ndarray, *, num_residues: int, top: float) -> None:
    """Draw the predicted aligned error as the AlphaFold database does.

    Args:
        axes: the map.
        bar: the axes of the color bar.
        image: [n, n], angstrom; row: aligned residue, column: scored residue.
        num_residues: N_res, of which the image may have block means.
        top: the upper end of the colors, angstrom.
    """
    style_axes(axes)
    end = num_residues + 0.5
    drawn = axes.imshow(
        image,
        cmap="Greens_r",
        vmin=0.0,
        vmax=top,
        extent=(0.5, end, end, 0.5),
        interpolation="antialiased",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_residue_locator(num_residues))
        axis.set_major_formatter(FuncFormatter(_with_commas))
    for spine in axes.spines.values():
        spine.set(visible=True)
    add_title(axes, "Predicted aligned error")
    add_label(axes, "x", "Scored residue")
    add_label(axes, "y", "Aligned residue")
    color_bar = axes.figure.colorbar(drawn, cax=bar)
    color_bar.outline.set_linewidth(0.6)
    color_bar.locator = MaxNLocator(nbins=6, steps=[1, 2, 5, 10])
    color_bar.update_ticks()
    bar.tick_params(labelsize=7, colors=DARK, width=0.6, length=2.5, pad=2)
    add_label(bar, "y", f"Expected position error ({ANGSTROM})")


def draw_depth(axes: Axes, depth: np.ndarray, *, num_rows: int) -> None:
    """Draw the number of rows without a gap at each residue."""
    style_axes(axes)
    rows = f"{num_rows:,} row" + ("" if num_rows == 1 else "s")
    add_title(axes, f"Alignment depth ({rows})")
    trace = thinned(depth.astype(np.float64))
    edges = np.append(block_starts(len(depth), MAX_POINTS), len(depth)) + 0.5
    axes.stairs(trace.mean, edges, fill=True, facecolor="#B9C7D6", edgecolor="none")
    axes.stairs(
        trace.mean, edges, baseline=None, edgecolor=_LINE_COLOR, linewidth=line_width(len(depth))
    )
    axes.set_ylim(0.0, max(1.0, float(depth.max())) * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_with_commas))
    set_residue_axis(axes, len(depth))
    add_label(axes, "x", "Residue")
    add_label(axes, "y", "Rows without a gap")


def set_residue_axis(axes: Axes, num_residues: int) -> None:
    """Make the x axis that of the residues, which are numbered from 1."""
    axes.set_xlim(0.5, num_residues + 0.5)
    axes.xaxis.set_major_locator(_residue_locator(num_residues))
    axes.xaxis.set_major_formatter(FuncFormatter(_with_commas))


def class_patches() -> list[Patch]:
    """Return the entries of a legend for the four classes, the best first."""
    return [
        Patch(facecolor=item.color, edgecolor="none", label=item.label)
        for item in reversed(CLASSES)
    ]


def draw_legend(
    figure: Figure, patches: Sequence[Patch], *, loc: str, bbox_to_anchor: tuple[float, float]
) -> None:
    """Draw a legend in one row. loc, bbox_to_anchor: as in Matplotlib."""
    figure.legend(
        handles=patches,
        ncols=len(patches),
        fontsize=7,
        frameon=False,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.2,
        handletextpad=0.45,
        loc=loc,
        bbox_to_anchor=bbox_to_anchor,
    )


def _residue_locator(num_residues: int) -> MaxNLocator:
    num_ticks = 8 if num_residues < 1000 else 5
    return MaxNLocator(nbins=num_ticks, integer=True, steps=[1, 2, 5, 10])


def _with_commas(value: float, _: object) -> str:
    return f"{value:,.0f}"
