"""Realignment of a template hit to the actual sequence of its chain, with kalign."""

from __future__ import annotations

import kalign

MIN_LENGTH = 6
"""kalign does not accept shorter sequences."""
MIN_IDENTITY = 0.9


class AlignmentError(ValueError):
    """Two sequences are too different to be versions of one chain."""


def realign(old: str, new: str) -> dict[int, int]:
    """Map positions of the old sequence to the aligned positions of the new sequence.

    Raises:
        AlignmentError: a sequence has fewer than 6 letters, or identical pairs are less than 90 %
            of the shorter sequence.
    """
    if min(len(old), len(new)) < MIN_LENGTH:
        raise AlignmentError(
            f"too short to align: {len(old)} and {len(new)} letters, expected at least {MIN_LENGTH}"
        )
    aligned_old, aligned_new = kalign.align([old, new], seq_type="protein", n_threads=1)
    positions: dict[int, int] = {}
    old_position = new_position = -1
    num_same = 0
    for old_letter, new_letter in zip(aligned_old, aligned_new, strict=True):
        old_position += old_letter != "-"
        new_position += new_letter != "-"
        if old_letter != "-" and new_letter != "-":
            positions[old_position] = new_position
            num_same += old_letter == new_letter
    identity = num_same / min(len(old), len(new))
    if identity < MIN_IDENTITY:
        raise AlignmentError(
            f"the chain differs from the hit: {identity:.1%} identical, "
            f"expected at least {MIN_IDENTITY:.0%}"
        )
    return positions
