"""The backbone as a surface: ribbons for helices and strands, a tube for the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openfold_opt.predict.pictures.secondary_structure import (
    COIL,
    HELIX,
    STRAND,
    assign_secondary_structure,
    runs,
)

TUBE_RADIUS = 0.32
RIBBON_THICKNESS = 0.32
HELIX_WIDTH, STRAND_WIDTH, ARROW_WIDTH = 1.35, 1.2, 1.95
"""Half widths and half thickness, angstrom."""
_ARROW_RESIDUES = 1.3
_SPHERE_RADIUS, _NUM_SPHERE_RINGS = 1.0, 9


@dataclass(frozen=True, kw_only=True, eq=False)
class Rings:
    """Ellipses along a segment of the backbone; neighboring ones are joined by a surface."""

    centers: np.ndarray
    """[n, 3], angstrom."""
    wide: np.ndarray
    """[n, 3]: vectors from the centers to the ends of the wide axes."""
    thin: np.ndarray
    """[n, 3]: vectors from the centers to the ends of the thin axes."""
    residue: np.ndarray
    """int [n]: index of the residue of each ellipse."""

    def points(self, num_sides: int, *, extra: float = 0.0) -> np.ndarray:
        """Return points on the ellipses, [n, num_sides, 3]. extra: added to the half axes."""
        angles = np.arange(num_sides) * 2 * np.pi / num_sides
        wide = self.wide + extra * _unit(self.wide)
        thin = self.thin + extra * _unit(self.thin)
        return (
            self.centers[:, None]
            + np.cos(angles)[:, None] * wide[:, None]
            + np.sin(angles)[:, None] * thin[:, None]
        )


def backbone_rings(
    ca: np.ndarray, has_ca: np.ndarray, *, steps: int, min_radius: float = 0.0
) -> list[Rings]:
    """Return the ellipses of every continuous segment of a chain.

    A residue without CA atom is a gap. A residue between two gaps is a sphere.

    Args:
        ca: [N_res, 3], positions of the CA atoms, angstrom.
        has_ca: bool [N_res].
        steps: ellipses per residue.
        min_radius: lower limit of half widths and half thickness, angstrom. It makes tubes visible
            in pictures of very large structures.
    """
    segments = []
    for start, stop in runs(has_ca):
        points = ca[start:stop].astype(np.float64)
        if stop - start == 1:
            segments.append(_sphere(points[0], start, max(_SPHERE_RADIUS, 2 * min_radius)))
        else:
            segments.append(_segment(points, start, steps=steps, min_radius=min_radius))
    return segments


def _segment(ca: np.ndarray, first: int, *, steps: int, min_radius: float) -> Rings:
    codes = assign_secondary_structure(ca)
    at = np.linspace(0.0, len(ca) - 1.0, (len(ca) - 1) * steps + 1)
    centers = _spline(_smooth_strands(ca, codes), at)
    along = _unit(np.gradient(centers, axis=0))
    across = _interpolate(_binormals(ca, codes), at)
    across = _unit(across - (across * along).sum(axis=1, keepdims=True) * along)
    width, thickness = _half_axes(codes, at)
    width, thickness = np.maximum(width, min_radius), np.maximum(thickness, min_radius)
    rings = Rings(
        centers=centers,
        wide=across * width[:, None],
        thin=np.cross(along, across) * thickness[:, None],
        residue=first + np.round(at).astype(int),
    )
    return _closed(rings)


def _half_axes(codes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return half width and half thickness at fractional residue numbers."""
    widths = np.select([codes == HELIX, codes == STRAND], [HELIX_WIDTH, STRAND_WIDTH], TUBE_RADIUS)
    thicknesses = np.where(codes == COIL, TUBE_RADIUS, RIBBON_THICKNESS)
    numbers = np.arange(len(codes))
    # The width changes in the middle half of the way between two residues.
    start = np.floor(at)
    sharp = start + np.clip(2.0 * (at - start) - 0.5, 0.0, 1.0)
    width = np.interp(sharp, numbers, widths)
    thickness = np.interp(sharp, numbers, thicknesses)
    for _, stop in runs(codes == STRAND):
        # The arrow head ends at the last residue of the strand.
        to_tip = stop - 1 - at
        is_head = (to_tip >= 0) & (to_tip <= _ARROW_RESIDUES)
        slope = (ARROW_WIDTH - TUBE_RADIUS) / _ARROW_RESIDUES
        width[is_head] = TUBE_RADIUS + slope * to_tip[is_head]
        width[(to_tip < 0) & (to_tip > -1)] = TUBE_RADIUS
    return width, thickness


def _smooth_strands(ca: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return control points of the curve: strands, whose CA atoms zigzag, are straightened."""
    points = ca.copy()
    average = (ca[:-2] + 2 * ca[1:-1] + ca[2:]) / 4
    is_strand = codes[1:-1] == STRAND
    points[1:-1][is_strand] = average[is_strand]
    return points


def _binormals(ca: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the direction of the width of the ribbon at each residue, [n, 3].

    It is the normal of the plane of three CA atoms: near the axis of a helix, and in the plane of
    a sheet.
    """
    steps = np.diff(ca, axis=0)
    normals = np.zeros_like(ca)
    normals[1:-1] = _unit(np.cross(steps[:-1], steps[1:]))
    for residue in range(1, len(ca)):
        if not normals[residue].any():
            normals[residue] = normals[residue - 1]
        elif normals[residue] @ normals[residue - 1] < 0:
            # The planes of a strand alternate; the ribbon must not turn over.
            normals[residue] *= -1
    if not normals.any():
        # A straight line, or two residues: any direction across it.
        normals[:] = _perpendicular(steps[0])
    first = int(np.flatnonzero(normals.any(axis=1))[0])
    normals[:first] = normals[first]
    smooth = normals.copy()
    smooth[1:-1] = normals[:-2] + normals[1:-1] + normals[2:]
    is_strand = (codes == STRAND)[:, None]
    return _unit(np.where(is_strand, smooth, normals))


def _perpendicular(direction: np.ndarray) -> np.ndarray:
    axis = np.zeros(3)
    axis[np.argmin(np.abs(direction))] = 1.0
    return _unit(np.cross(direction, axis)) if direction.any() else axis


def _spline(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return a Catmull-Rom curve through the points, at fractional indices."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    index = np.minimum(at.astype(int), len(points) - 2)
    t = (at - index)[:, None]
    before, start, end, after = (padded[index + offset] for offset in range(4))
    return start + 0.5 * t * (
        end
        - before
        + t * (2 * before - 5 * start + 4 * end - after)
        + t**2 * (3 * (start - end) + after - before)
    )


def _interpolate(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    numbers = np.arange(len(values))
    return np.stack([np.interp(at, numbers, column) for column in values.T], axis=1)


def _closed(rings: Rings) -> Rings:
    """Return the rings with a point at each end, which closes the surface."""
    ends = [0, *range(len(rings.centers)), -1]
    factor = np.ones((len(ends), 1))
    factor[[0, -1]] = 1e-3
    return Rings(
        centers=rings.centers[ends],
        wide=rings.wide[ends] * factor,
        thin=rings.thin[ends] * factor,
        residue=rings.residue[ends],
    )


def _sphere(center: np.ndarray, residue: int, radius: float) -> Rings:
    angles = np.linspace(np.pi, 0.0, _NUM_SPHERE_RINGS)
    offsets = radius * np.outer(np.cos(angles), [1.0, 0.0, 0.0])
    size = np.maximum(radius * np.sin(angles), 1e-3)
    return Rings(
        centers=center + offsets,
        wide=np.outer(size, [0.0, 1.0, 0.0]),
        thin=np.outer(size, [0.0, 0.0, 1.0]),
        residue=np.full(_NUM_SPHERE_RINGS, residue),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1.0, lengths)
