"""The panel with the structure: shaded ribbons with outlines, drawn from back to front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patheffects import withStroke

from openfold_opt.predict.pictures.projection import best_view
from openfold_opt.predict.pictures.ribbon import backbone_rings

_LIGHT = np.array([-0.35, 0.55, 0.76])
_AMBIENT, _DIFFUSE = 0.66, 0.40
_FOG = 0.28
"""Part of white in the color of the point that is farthest away."""
_OUTLINE_PIXELS = 1.3
_OUTLINE_BRIGHTNESS = 0.30
_MIN_EXTENT = 24.0
"""A smaller structure is not enlarged to fill the panel, angstrom."""
_MARGIN = 0.05
_SET_BACK = 1.5
"""Added to the depth of a chain that is behind another one, angstrom."""
_LABEL_PIXELS, _LABEL_DISTANCE = 16.0, 1.0
"""Distance of the letters at the termini: pixels, and in addition angstrom."""
_NUM_LABEL_PLACES = 24
_NUM_QUADS = 24_000
"""Faces of a chain, if at least two rings per residue are left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnChain:
    """A chain in a panel."""

    ca: np.ndarray
    """[N_res, 3], positions of the CA atoms, angstrom."""
    has_ca: np.ndarray
    """bool [N_res]."""
    colors: np.ndarray
    """float [N_res, 3], 0..1."""
    has_labels: bool = True
    """Whether the termini are marked with N and C."""
    is_behind: bool = False
    """Whether the chain is hidden by another one at almost the same place."""


def draw_structures(axes: Axes, chains: Sequence[DrawnChain]) -> None:
    """Draw superposed chains. At least one residue must have a CA atom.

    The view shows the principal axes of the first chain with a CA atom.
    """
    shown = [chain for chain in chains if chain.has_ca.any()]
    rotation = best_view(shown[0].ca[shown[0].has_ca].astype(np.float64))
    turned = [chain.ca.astype(np.float64) @ rotation.T for chain in shown]
    every = np.concatenate([ca[chain.has_ca] for ca, chain in zip(turned, shown)])
    scale = _set_limits(axes, every)
    back, front = every[:, 2].min(), every[:, 2].max()
    num_residues = sum(int(chain.has_ca.sum()) for chain in shown)
    faces = [
        _faces(chain, ca, num_residues=num_residues, pixel=scale)
        for chain, ca in zip(shown, turned)
    ]
    corners = np.concatenate([corners for corners, _ in faces])
    colors = np.concatenate([colors for _, colors in faces])
    depth = corners[:, :, 2].mean(axis=1)
    set_back = [
        np.full(len(chain_corners), _SET_BACK if chain.is_behind else 0.0)
        for chain, (chain_corners, _) in zip(shown, faces)
    ]
    order = np.argsort(depth - np.concatenate(set_back), kind="stable")
    nearness = np.clip((depth - back) / max(front - back, 1.0), 0.0, 1.0)
    fog = (_FOG * (1.0 - nearness))[:, None]
    colors = colors * (1.0 - fog) + fog
    axes.add_collection(
        PolyCollection(
            corners[order, :, :2],
            facecolors=colors[order],
            # Edges of the same color hide the seams between faces.
            edgecolors=colors[order],
            linewidths=0.25,
        ),
        autolim=False,
    )
    for chain, ca in zip(shown, turned):
        if chain.has_labels and chain.has_ca.sum() > 1:
            ends = ca[chain.has_ca][[0, -1], :2]
            offset = _LABEL_PIXELS * scale + _LABEL_DISTANCE
            _label_termini(axes, ends, every[:, :2], offset=offset)


def _set_limits(axes: Axes, points: np.ndarray) -> float:
    """Center the structure in the axes, and return the size of a pixel in angstrom."""
    axes.set_axis_off()
    box = axes.get_window_extent()
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    extent = np.maximum(high - low, _MIN_EXTENT)
    # Ribbons are wider than the positions of the atoms.
    room = np.array([box.width, box.height]) * (1.0 - 2 * _MARGIN)
    pixel = float(((extent + 4.0) / room).max())
    middle = (low + high) / 2
    half = np.array([box.width, box.height]) * pixel / 2
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
    return pixel


def _faces(
    chain: DrawnChain, ca: np.ndarray, *, num_residues: int, pixel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return corners [n, 4, 3] and colors [n, 3] of the visible faces and of the outlines."""
    num_sides = 12 if num_residues <= 1000 else 6 if num_residues <= 4000 else 4
    steps = int(np.clip(_NUM_QUADS // (num_sides * num_residues), 2, 12))
    corners, colors = [], []
    for rings in backbone_rings(ca, chain.has_ca, steps=steps, min_radius=0.8 * pixel):
        color = np.repeat(chain.colors[rings.residue[1:]], num_sides, axis=0)
        surface = _quads(rings.points(num_sides))
        normals = _normals(surface)
        is_visible = normals[:, 2] > 0
        shade = _AMBIENT + _DIFFUSE * np.clip(normals[is_visible] @ _LIGHT, 0.0, 1.0)
        corners.append(surface[is_visible])
        colors.append(np.minimum(color[is_visible] * shade[:, None], 1.0))
        # The far side of a slightly thicker ribbon is visible around the ribbon only.
        outline = _quads(rings.points(num_sides, extra=_OUTLINE_PIXELS * pixel))
        is_far_side = _normals(outline)[:, 2] < 0
        corners.append(outline[is_far_side])
        colors.append(color[is_far_side] * _OUTLINE_BRIGHTNESS)
    return np.concatenate(corners), np.concatenate(colors)


def _quads(points: np.ndarray) -> np.ndarray:
    """Return the faces between neighboring rings of points: [n, 4, 3]."""
    following = np.roll(points, -1, axis=1)
    quads = np.stack([points[:-1], following[:-1], following[1:], points[1:]], axis=2)
    return quads.reshape(-1, 4, 3)


def _normals(quads: np.ndarray) -> np.ndarray:
    """Return the outward unit normals of faces, [n, 3]."""
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(lengths == 0, 1.0, lengths)


def _label_termini(axes: Axes, ends: np.ndarray, points: np.ndarray, *, offset: float) -> None:
    """Write N and C next to the ends of a chain, where most space is free.

    Args:
        axes: the panel.
        ends: [2, 2], positions of the first and of the last residue.
        points: [n, 2], positions of all drawn residues.
        offset: distance of a letter from its end, angstrom.
    """
    angles = np.arange(_NUM_LABEL_PLACES) * 2 * np.pi / _NUM_LABEL_PLACES
    circle = offset * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for letter, end in zip("NC", ends):
        places = end + circle
        squared = ((places[:, None] - points) ** 2).sum(axis=2)
        crowding = (1.0 / (squared + offset**2)).sum(axis=1)
        axes.text(
            *places[np.argmin(crowding)],
            letter,
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            color="#333333",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
