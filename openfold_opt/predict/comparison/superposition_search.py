"""TM-score and GDT-TS: the best superpositions of two chains with known correspondence.

The search is that of the TM-score program (Zhang and Skolnick 2004). It starts from the
superpositions of all fragments of several lengths. From each start it repeats: select the pairs
that are close after the superposition, and superimpose these pairs. All starts are computed
together. The residues that a superposition selects determine all later ones, so that a selection
that occurred before ends its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openfold_opt.geometry.superposition import GDT_TS_THRESHOLDS_ANGSTROM

MIN_PAIRS = 3
"""Fewer points do not determine a superposition."""
MIN_D0_ANGSTROM = 0.5
_SEARCH_D0_RANGE_ANGSTROM = (4.5, 8.0)
_NUM_FRAGMENT_LENGTHS, _MIN_FRAGMENT_LENGTH = 6, 4
_MAX_STARTS_PER_LENGTH = 1000
"""Longer chains start from every second, third, ... fragment."""
_MAX_ITERATIONS = 20
_MAX_BLOCK_ELEMENTS = 2**21
"""Elements of an array [superpositions, N] that is computed at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchResult:
    """The best superpositions that the search has found."""

    tm_score: float
    """0..1."""
    gdt_ts: float
    """0..1."""
    rotation: np.ndarray
    """[3, 3] float64: predicted @ rotation + translation is superimposed on true with the highest
    TM-score."""
    translation: np.ndarray
    """[3] float64, angstrom."""


def d0_angstrom(num_residues: int) -> float:
    """Return the distance scale of the TM-score for a chain (Zhang and Skolnick 2004, eq. 5)."""
    if num_residues <= 15:
        return MIN_D0_ANGSTROM
    return max(MIN_D0_ANGSTROM, 1.24 * (num_residues - 15) ** (1 / 3) - 1.8)


def search_superpositions(
    predicted: np.ndarray, true: np.ndarray, *, num_true: int
) -> SearchResult:
    """Find the superpositions of predicted on true with the highest TM-score and GDT-TS.

    The TM-score is the one that the TM-score program and TM-align find for this correspondence.
    Each threshold of GDT-TS has its own superposition, as in LGA (Zemla 2003). It is searched with
    the threshold as the cutoff, so that GDT-TS is at least that of the TM-score program.

    Args:
        predicted: [N, 3] angstrom, CA atoms.
        true: [N, 3] angstrom, the CA atom of the same residue.
        num_true: number of residues by which both scores are normalized, at least N. Residues
            without a pair count as wrong. It also determines d0.

    Raises:
        ValueError: there are fewer than three pairs.
    """
    num_pairs = len(predicted)
    if num_pairs < MIN_PAIRS:
        raise ValueError(f"found {num_pairs} pairs of CA atoms, expected at least {MIN_PAIRS}")
    pairs = _Pairs(predicted, true)
    d0 = d0_angstrom(num_true)
    low, high = _SEARCH_D0_RANGE_ANGSTROM
    search_d0 = min(max(d0, low), high)
    best_sum, rotation, translation = -1.0, np.eye(3), np.zeros(3)
    counts = np.zeros(len(GDT_TS_THRESHOLDS_ANGSTROM))
    for trial in pairs.superpositions(first_cutoff=search_d0 - 1.0, cutoff=search_d0 + 1.0):
        counts = np.maximum(counts, trial.largest_counts())
        sums = (1.0 / (1.0 + trial.square / d0**2)).sum(1)
        best = int(sums.argmax())
        if sums[best] > best_sum:
            best_sum = float(sums[best])
            rotation, translation = trial.rotation[best], trial.translation[best]
    for threshold in GDT_TS_THRESHOLDS_ANGSTROM:
        for trial in pairs.superpositions(first_cutoff=threshold, cutoff=threshold):
            counts = np.maximum(counts, trial.largest_counts())
    return SearchResult(
        tm_score=best_sum / num_true,
        gdt_ts=float(counts.mean()) / num_true,
        rotation=rotation,
        translation=pairs.true_center + translation - pairs.predicted_center @ rotation,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trial:
    """Superpositions that were computed together."""

    rotation: np.ndarray
    """[rows, 3, 3]"""
    translation: np.ndarray
    """[rows, 3], for points relative to the centers."""
    square: np.ndarray
    """[rows, N]: squared distances, square angstrom."""

    def largest_counts(self) -> np.ndarray:
        """Return the largest number of pairs within each threshold of GDT-TS: [4]."""
        return np.array(
            [
                np.count_nonzero(self.square <= threshold**2, axis=1).max()
                for threshold in GDT_TS_THRESHOLDS_ANGSTROM
            ]
        )


class _Pairs:
    """Two lists of corresponding points, and the superpositions of the search.

    A superposition of selected pairs depends on the sums of 1, x, y and x y^T over the pairs, and
    squared distances after it are linear in the same terms. Both are matrix products with `_terms`.
    """

    def __init__(self, predicted: np.ndarray, true: np.ndarray) -> None:
        moved, fixed = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
        self.predicted_center, self.true_center = moved.mean(0), fixed.mean(0)
        # Small coordinates keep the rounding errors of the linear form small.
        x, y = moved - self.predicted_center, fixed - self.true_center
        products = (x[:, :, None] * y[:, None, :]).reshape(-1, 9)
        self._terms = np.concatenate([np.ones((len(x), 1)), x, y, products], axis=1)
        self._squares = (x**2).sum(1) + (y**2).sum(1)
        # Hash of a selection: the sum of random numbers of its residues.
        self._hash_weights = np.random.default_rng(0).random(len(x))

    def superpositions(self, *, first_cutoff: float, cutoff: float) -> Iterator[_Trial]:
        """Start from all fragments, and iterate with the pairs closer than a cutoff, angstrom.

        first_cutoff: that after the superposition of a fragment.
        """
        num_pairs = len(self._terms)
        rows = max(1, _MAX_BLOCK_ELEMENTS // num_pairs)
        starts = _fragments(num_pairs)
        seen = np.zeros(0)
        for first in range(0, len(starts), rows):
            index = np.arange(num_pairs)
            begin, end = starts[first : first + rows].T
            selected = (begin[:, None] <= index) & (index < end[:, None])
            for iteration in range(_MAX_ITERATIONS + 1):
                trial = self._superimpose(selected)
                yield trial
                selected = _select(trial.square, first_cutoff if iteration == 0 else cutoff)
                hashes, unique = np.unique(selected @ self._hash_weights, return_index=True)
                selected = selected[unique[~np.isin(hashes, seen)]]
                seen = np.union1d(seen, hashes)
                if not len(selected):
                    break

    def _superimpose(self, selected: np.ndarray) -> _Trial:
        """Superimpose the selected pairs. selected: bool [rows, N]."""
        rotation, translation = _fit(selected @ self._terms)
        coefficients = np.concatenate(
            [
                (translation**2).sum(1, keepdims=True),
                2.0 * np.einsum("bij,bj->bi", rotation, translation),
                -2.0 * translation,
                -2.0 * rotation.reshape(-1, 9),
            ],
            axis=1,
        )
        square = coefficients @ self._terms.T
        square += self._squares
        np.maximum(square, 0.0, out=square)
        return _Trial(rotation=rotation, translation=translation, square=square)


def _fragments(num_pairs: int) -> np.ndarray:
    """Return [start, stop) of all fragments of N, N/2, N/4, ... pairs: int64 [..., 2]."""
    fragments = []
    lengths = [num_pairs // 2**level for level in range(_NUM_FRAGMENT_LENGTHS - 1)]
    shortest = min(_MIN_FRAGMENT_LENGTH, num_pairs)
    for length in {length for length in lengths if length > shortest} | {shortest}:
        num_starts = num_pairs - length + 1
        step = -(-num_starts // _MAX_STARTS_PER_LENGTH)
        start = np.arange(0, num_starts, step)
        fragments.append(np.stack([start, start + length], axis=1))
    return np.concatenate(fragments)


def _fit(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Superimpose points with minimal RMSD (Kabsch 1976).

    Args:
        sums: [rows, 16], the sums of 1, x, y and x y^T over the points of each row.

    Returns:
        Rotations [rows, 3, 3] and translations [rows, 3], so that x @ rotation + translation is
        close to y.
    """
    count = sums[:, :1]
    center_x, center_y = sums[:, 1:4] / count, sums[:, 4:7] / count
    covariance = sums[:, 7:].reshape(-1, 3, 3) - sums[:, 1:4, None] * center_y[:, None, :]
    left, _, right = np.linalg.svd(covariance)
    # Reflections are not allowed: invert the axis of the smallest singular value if necessary.
    left[:, :, 2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))[:, None]
    rotation = left @ right
    return rotation, center_y - np.einsum("bi,bij->bj", center_x, rotation)


def _select(square: np.ndarray, cutoff: float) -> np.ndarray:
    """Return which pairs are closer than the cutoff, but at least the closest ones: bool.

    If there are fewer than three such pairs, the cutoff is raised in steps of 0.5 angstrom.
    """
    selected = square < cutoff**2
    is_small = np.count_nonzero(selected, axis=1) < MIN_PAIRS
    if is_small.any():
        third = np.sqrt(np.partition(square[is_small], MIN_PAIRS - 1, axis=1)[:, MIN_PAIRS - 1])
        steps = np.floor((third - cutoff) / 0.5) + 1.0
        selected[is_small] = square[is_small] < ((cutoff + 0.5 * steps) ** 2)[:, None]
    return selected
