"""A prediction over the true structure, with the distance of each CA atom."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.pictures.canvas import (
    add_label,
    add_title,
    in_default_style,
    new_figure,
    png_bytes,
    style_axes,
    write_heading,
)
from openfold_opt.predict.pictures.confidence import confidence_colors, rgb
from openfold_opt.predict.pictures.panels import (
    ANGSTROM,
    class_patches,
    draw_legend,
    draw_trace,
    set_residue_axis,
)
from openfold_opt.predict.pictures.structure_panel import DrawnChain, draw_structures
from openfold_opt.protein.shard_format import write_atomically

WIDTH, HEIGHT = 8.0, 6.0
"""Inches."""
PLACES = {"structure": (0.02, 0.345, 0.96, 0.545), "distance": (0.07, 0.085, 0.905, 0.15)}
"""Left, bottom, width and height of each panel, as fractions of the picture."""
TRUE_COLOR, PREDICTED_COLOR = "#B4B4B4", "#0053D6"
"""Color of the true structure, and of a prediction without pLDDT."""
_MIN_TOP = 2.0
"""A distance panel ends at least here, so that a good prediction looks like one, angstrom."""


@in_default_style
def draw_superposition(
    path: str | os.PathLike[str],
    predicted: ChainStructure,
    truth: ChainStructure,
    *,
    scores: str = "",
) -> None:
    """Write a PNG of 1600 x 1200 pixels: a prediction over the gray true structure.

    Below is the distance between the CA atoms of each residue. The same input gives the same
    bytes. Safe in several threads.

    Args:
        path: the file, which is written atomically.
        predicted: the prediction, in the colors of its pLDDT if it has one.
        truth: the true structure, superposed on the prediction. It has an entry for each residue of
            the prediction, without atoms where the residue is not resolved.
        scores: a line below the names, such as "TM-score 0.91, RMSD 1.4".

    Raises:
        ValueError: the numbers of residues differ, or no residue has a CA atom in both.
        OSError: the file cannot be written.
    """
    if predicted.num_residues != truth.num_residues:
        raise ValueError(
            f"{predicted.name} has {predicted.num_residues} residues, and the superposed structure "
            f"{truth.name} has {truth.num_residues}; expected one entry for each residue of the "
            "prediction"
        )
    is_matched = predicted.has_ca & truth.has_ca
    if not is_matched.any():
        raise ValueError(f"{predicted.name} and {truth.name} have no residue with two CA atoms")
    distances = np.linalg.norm(predicted.ca_positions - truth.ca_positions, axis=1)
    figure = new_figure(WIDTH, HEIGHT)
    write_heading(figure, f"{predicted.name} and {truth.name}", scores)
    _draw_structures(figure.add_axes(PLACES["structure"]), predicted, truth)
    has_plddt = predicted.plddt is not None
    patches = class_patches() if has_plddt else [_patch(PREDICTED_COLOR, "Prediction")]
    draw_legend(
        figure,
        [*patches, _patch(TRUE_COLOR, "True structure")],
        loc="center",
        bbox_to_anchor=(0.5, 0.315),
    )
    _draw_distances(figure.add_axes(PLACES["distance"]), np.where(is_matched, distances, np.nan))
    write_atomically(Path(path), png_bytes(figure))


def _draw_structures(axes: Axes, predicted: ChainStructure, truth: ChainStructure) -> None:
    if predicted.plddt is None:
        colors = np.tile(rgb(PREDICTED_COLOR), (predicted.num_residues, 1))
    else:
        colors = confidence_colors(predicted.plddt)
    gray = np.tile(rgb(TRUE_COLOR), (truth.num_residues, 1))
    draw_structures(
        axes,
        [
            DrawnChain(ca=predicted.ca_positions, has_ca=predicted.has_ca, colors=colors),
            DrawnChain(
                ca=truth.ca_positions,
                has_ca=truth.has_ca,
                colors=gray,
                has_labels=False,
                is_behind=True,
            ),
        ],
    )


def _draw_distances(axes: Axes, distances: np.ndarray) -> None:
    """Draw the distance of each residue. NaN: not in both structures, a gap in the line."""
    style_axes(axes)
    add_title(axes, "Distance between predicted and true CA atoms")
    draw_trace(axes, distances)
    axes.set_ylim(0.0, max(_MIN_TOP, 1.08 * float(np.nanmax(distances))))
    axes.grid(axis="y", linewidth=0.4, color="#E2E2E2")
    set_residue_axis(axes, len(distances))
    add_label(axes, "x", "Residue")
    add_label(axes, "y", f"Distance ({ANGSTROM})")


def _patch(color: str, label: str) -> Patch:
    return Patch(facecolor=color, edgecolor="none", label=label)
