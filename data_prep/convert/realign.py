"""Realignment of a template hit to the sequence that its chain really has, by kalign."""

from __future__ import annotations

import kalign

MIN_LENGTH = 6
"""kalign does not take shorter sequences."""
MIN_IDENTITY = 0.9


class AlignmentError(ValueError):
    """Two sequences that should be versions of one chain are not alike."""


def realign(old: str, new: str) -> dict[int, int]:
    """Position in the old sequence -> position in the new one, for all pairs in one column of their alignment.

    AlignmentError unless both have at least 6 letters and identical pairs make up 90 % of the shorter one.
    """
    if min(len(old), len(new)) < MIN_LENGTH:
        raise AlignmentError(
            f"too short to align: {len(old)} and {len(new)} letters, expected at least {MIN_LENGTH}"
        )
    aligned_old, aligned_new = kalign.align([old, new], seq_type="protein", n_threads=1)
    places: dict[int, int] = {}
    old_place = new_place = -1
    num_same = 0
    for old_letter, new_letter in zip(aligned_old, aligned_new, strict=True):
        old_place += old_letter != "-"
        new_place += new_letter != "-"
        if old_letter != "-" and new_letter != "-":
            places[old_place] = new_place
            num_same += old_letter == new_letter
    identity = num_same / min(len(old), len(new))
    if identity < MIN_IDENTITY:
        raise AlignmentError(
            f"the chain differs from the hit: {identity:.1%} identical, expected at least {MIN_IDENTITY:.0%}"
        )
    return places
