"""Whether two chains are the same: a check that evaluated chains are not trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

_AMBIGUOUS = "XUOBZJ"
"""Letters that programs replace by others: unknown and rare residues, and ambiguous ones."""


def comparable_id(chain_id: str) -> str:
    """Return a chain id in lower case: file names may have lost the case of its letters."""
    return chain_id.lower()


class SequenceTable:
    """Chains by their sequences.

    Sequences are the same if they have the same length and no position has two different letters of
    common amino acids.

    Args:
        sequences: chain id -> sequence.
    """

    def __init__(self, sequences: Mapping[str, str]) -> None:
        self._exact: dict[str, str] = {}
        self._by_length: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for chain_id, sequence in sequences.items():
            if sequence not in self._exact:
                self._exact[sequence] = chain_id
                self._by_length[len(sequence)].append((chain_id, sequence))

    def has_length(self, length: int) -> bool:
        """Return whether a chain has this length."""
        return length in self._by_length

    def find(self, sequence: str) -> str | None:
        """Return a chain with the same sequence; None if there is none."""
        if sequence in self._exact:
            return self._exact[sequence]
        return next(
            (
                chain_id
                for chain_id, other in self._by_length.get(len(sequence), ())
                if _is_same(sequence, other)
            ),
            None,
        )


def _is_same(one: str, other: str) -> bool:
    """Return whether sequences of the same length differ only in ambiguous letters."""
    return all(
        a == b or a in _AMBIGUOUS or b in _AMBIGUOUS for a, b in zip(one, other, strict=True)
    )
