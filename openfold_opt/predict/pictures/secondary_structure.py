"""Helices and strands from CA positions alone.

The distances are those of P-SEA: Labesse et al., Comput. Appl. Biosci. 13, 291 (1997).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

COIL, HELIX, STRAND = 0, 1, 2
_MIN_HELIX, _MIN_STRAND = 5, 3
# Distances from CA(i) to CA(i + 2), CA(i + 3), CA(i + 4), and their tolerances, in angstrom.
_HELIX = ((5.5, 5.3, 6.4), (0.5, 0.5, 0.6))
_STRAND = ((6.7, 9.9, 12.4), (0.6, 0.9, 1.1))
_CONTACT = 5.5
"""Neighboring strands of a sheet have CA atoms within this distance, in angstrom."""
_MIN_CONTACTS = 2
_BLOCK = 512


def assign_secondary_structure(ca: np.ndarray) -> np.ndarray:
    """Return COIL, HELIX or STRAND for each residue of a continuous segment: int8 [n].

    A helix has at least five residues. A strand has at least three, and two contacts with another
    extended part of the segment.

    Args:
        ca: [n, 3], positions of the CA atoms, angstrom.
    """
    codes = np.full(len(ca), COIL, np.int8)
    is_extended = _matches(ca, *_STRAND)
    has_partner = _has_partner(ca, is_extended)
    for start, stop in runs(is_extended):
        if stop - start >= _MIN_STRAND and has_partner[start:stop].sum() >= _MIN_CONTACTS:
            codes[start:stop] = STRAND
    for start, stop in runs(_matches(ca, *_HELIX)):
        if stop - start >= _MIN_HELIX:
            codes[start:stop] = HELIX
    return codes


def _matches(
    ca: np.ndarray, distances: tuple[float, ...], tolerances: tuple[float, ...]
) -> np.ndarray:
    """Return which residues are part of five in a row with the given distances: bool [n]."""
    span = len(distances) + 2
    matched = np.zeros(len(ca), bool)
    num_starts = len(ca) - span + 1
    if num_starts < 1:
        return matched
    is_start = np.ones(num_starts, bool)
    for offset, (distance, tolerance) in enumerate(zip(distances, tolerances), start=2):
        steps = ca[offset : offset + num_starts] - ca[:num_starts]
        is_start &= np.abs(np.linalg.norm(steps, axis=1) - distance) < tolerance
    for offset in range(span):
        matched[offset : offset + num_starts] |= is_start
    return matched


def _has_partner(ca: np.ndarray, is_extended: np.ndarray) -> np.ndarray:
    """Return which residues are close to an extended residue at least four away: bool [n]."""
    result = np.zeros(len(ca), bool)
    numbers = np.flatnonzero(is_extended)
    points = ca[numbers].astype(np.float64)
    points -= points.mean(axis=0) if len(points) else 0.0
    lengths = (points**2).sum(axis=1)
    # Blocks limit the memory for long chains.
    for start in range(0, len(numbers), _BLOCK):
        block = slice(start, start + _BLOCK)
        squared = lengths[block, None] + lengths - 2.0 * points[block] @ points.T
        is_far = np.abs(numbers[block, None] - numbers) >= 4
        result[numbers[block]] = ((squared < _CONTACT**2) & is_far).any(axis=1)
    return result


def runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())
