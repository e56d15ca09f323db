"""The direction from which a structure is drawn."""

from __future__ import annotations

import numpy as np


def best_view(points: np.ndarray) -> np.ndarray:
    """Return the rotation that shows most of a structure: float64 [3, 3].

    `points @ rotation.T` has the longest principal axis in x, to the right, the second in y,
    upward, and the shortest in z, toward the viewer. It is a rotation without reflection, so that
    helices keep their hand. The first point is at the lower left.

    Args:
        points: [n, 3], angstrom, n >= 1.
    """
    centered = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    rotation = axes.T[::-1].copy()
    for axis in (0, 1):
        if rotation[axis] @ centered[0] > 0:
            rotation[axis] *= -1
    rotation[2] = np.cross(rotation[0], rotation[1])
    return rotation
