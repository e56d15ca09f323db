"""STEM.png: structure, pLDDT, predicted aligned error and alignment depth of one chain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.pictures.canvas import (
    add_title,
    in_default_style,
    new_figure,
    png_bytes,
    write_heading,
    write_note,
)
from openfold_opt.predict.pictures.confidence import confidence_colors
from openfold_opt.predict.pictures.pae_image import Matrix, downsample_pae
from openfold_opt.predict.pictures.panels import (
    class_patches,
    draw_depth,
    draw_legend,
    draw_pae,
    draw_plddt,
)
from openfold_opt.predict.pictures.structure_panel import DrawnChain, draw_structures
from openfold_opt.protein.shard_format import write_atomically

WIDTH, HEIGHT = 8.0, 6.0
"""Inches."""
PLACES = {
    "structure": (0.02, 0.385, 0.5, 0.5),
    "pae": (0.595, 0.41, 0.3375, 0.45),
    "pae_colors": (0.943, 0.41, 0.012, 0.45),
    "plddt": (0.07, 0.085, 0.415, 0.185),
    "depth": (0.595, 0.085, 0.375, 0.185),
}
"""Left, bottom, width and height of each panel, as fractions of the picture."""
_PAE_PIXELS = 540
"""Width of the error map in the picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainPicture:
    """What is drawn of a predicted chain."""

    structure: ChainStructure
    """The prediction, with pLDDT."""
    ptm: float | None = None
    """Predicted TM-score, 0..1; None if the weights do not predict it."""
    pae: Matrix | None = None
    """[N_res, N_res]: predicted aligned error, angstrom. A memory-mapped array saves memory."""
    max_pae: float | None = None
    """Upper end of its scale, angstrom; None: the weights do not predict it."""
    alignment_depth: Sequence[int] | None = None
    """[N_res]: rows of the alignment without a gap at each residue; None: unknown."""
    num_alignment_rows: int | None = None
    """Rows of the alignment; None: the largest depth, which is that of the query."""

    def __post_init__(self) -> None:
        """Raise ValueError if a value is missing, is not finite or has the wrong length."""
        structure = self.structure
        if structure.plddt is None:
            raise ValueError(f"{structure.name} has no pLDDT; only predictions have this picture")
        if not np.isfinite(structure.plddt).all():
            raise ValueError(f"{structure.name}: the pLDDT is not finite")
        if not np.isfinite(structure.ca_positions[structure.has_ca]).all():
            raise ValueError(f"{structure.name}: the positions are not finite")
        expected = (structure.num_residues, structure.num_residues)
        if self.pae is not None and self.pae.shape != expected:
            raise ValueError(
                f"{structure.name}: the predicted aligned error has the shape {self.pae.shape}; "
                f"expected {expected}"
            )
        depth = self.alignment_depth
        if depth is not None and len(depth) != structure.num_residues:
            raise ValueError(
                f"{structure.name}: the alignment depth has {len(depth)} values; expected one for "
                f"each of {structure.num_residues} residues"
            )


def draw_chain(path: str | os.PathLike[str], picture: ChainPicture) -> None:
    """Write the PNG of `chain_png` to a file.

    The file is written atomically, and replaces an existing one.

    Example:
        pae = np.load("a_pae.npz")["pae"]
        draw_chain("a.png", ChainPicture(structure=structure, ptm=0.8, pae=pae))

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(Path(path), chain_png(picture))


@in_default_style
def chain_png(picture: ChainPicture) -> bytes:
    """Return a PNG of 1600 x 1200 pixels with four panels.

    They are the backbone in the colors of the AlphaFold database, the pLDDT along the chain, the
    predicted aligned error and the depth of the alignment. The same input gives the same bytes.
    Safe in several threads.
    """
    figure = new_figure(WIDTH, HEIGHT)
    _draw_heading(figure, picture)
    _draw_structure(figure, picture.structure)
    _draw_pae(figure, picture)
    draw_plddt(figure.add_axes(PLACES["plddt"]), picture.structure.plddt)
    _draw_depth(figure, picture)
    return png_bytes(figure)


def _draw_heading(figure: Figure, picture: ChainPicture) -> None:
    structure = picture.structure
    residues = f"{structure.num_residues:,} residue" + ("" if structure.num_residues == 1 else "s")
    facts = [residues, f"mean pLDDT {structure.plddt.mean():.1f}"]
    if picture.ptm is not None:
        facts.append(f"pTM {picture.ptm:.2f}")
    write_heading(figure, structure.name, "  \N{MIDDLE DOT}  ".join(facts))


def _draw_structure(figure: Figure, structure: ChainStructure) -> None:
    axes = figure.add_axes(PLACES["structure"])
    draw_legend(figure, class_patches(), loc="center", bbox_to_anchor=(0.27, 0.36))
    if not structure.has_ca.any():
        write_note(axes, "No residue has a CA atom.")
        return
    drawn = DrawnChain(
        ca=structure.ca_positions,
        has_ca=structure.has_ca,
        colors=confidence_colors(structure.plddt),
    )
    draw_structures(axes, [drawn])


def _draw_pae(figure: Figure, picture: ChainPicture) -> None:
    axes = figure.add_axes(PLACES["pae"])
    if picture.pae is None:
        add_title(axes, "Predicted aligned error")
        is_predicted = picture.max_pae is not None
        write_note(
            axes,
            "The predicted aligned error was not saved."
            if is_predicted
            else "These weights predict no aligned error.",
        )
        return
    image = downsample_pae(picture.pae, max_pixels=_PAE_PIXELS)
    draw_pae(
        axes,
        figure.add_axes(PLACES["pae_colors"]),
        image,
        num_residues=picture.structure.num_residues,
        top=picture.max_pae or max(1.0, float(image.max())),
    )


def _draw_depth(figure: Figure, picture: ChainPicture) -> None:
    axes = figure.add_axes(PLACES["depth"])
    if picture.alignment_depth is None:
        add_title(axes, "Alignment depth")
        write_note(axes, "The alignment depth is unknown.")
        return
    depth = np.asarray(picture.alignment_depth)
    rows = picture.num_alignment_rows
    draw_depth(axes, depth, num_rows=int(depth.max()) if rows is None else rows)
