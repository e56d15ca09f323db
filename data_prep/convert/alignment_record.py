"""The record of an alignment: unique rows, sparse deletions and token counts, from parsed files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.convert.findings import QueryDifference
from data_prep.errors import BrokenFile, escaped
from data_prep.parsers.msa import ParsedMsa, merge_without_duplicates
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS, sequence_to_tokens
from openfold_opt.protein.records import AlignmentRecord
from openfold_opt.protein.shard_format import offsets

MAX_DIFFERENT_PERCENT = 5
"""Maximum percentage of letters in which a chain and the query of its alignment may differ."""


def make_alignment_record(msas: Sequence[ParsedMsa], sequence: str) -> AlignmentRecord:
    """Return the record of the rows of all files, in their order, without duplicates.

    Args:
        msas: of the same number of columns; without any, the sequence is the only row.
        sequence: the chain.
    """
    tokens, deletions = _rows(msas, sequence)
    rows, columns = np.nonzero(deletions)
    return AlignmentRecord(
        msa=tokens,
        deletion_indptr=offsets(np.bincount(rows, minlength=len(tokens)).tolist()),
        deletion_column=columns.astype(np.uint16),
        deletion_count=deletions[rows, columns],
        token_counts=count_tokens(tokens),
    )


def _rows(msas: Sequence[ParsedMsa], sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and deletions of all files; without files, the sequence is the only row."""
    if not msas:
        tokens = sequence_to_tokens(sequence)[None]
        return tokens, np.zeros(tokens.shape, dtype=np.int32)
    return merge_without_duplicates(msas)


def count_tokens(tokens: np.ndarray) -> np.ndarray:
    """Count the tokens in each column: int32 [N_res, 22] from uint8 [N_seq, N_res]."""
    counts = [np.count_nonzero(tokens == token, axis=0) for token in range(NUM_TOKENS)]
    return np.stack(counts, axis=1).astype(np.int32)


def compare_query(
    path: Path, msa: ParsedMsa, *, chain_id: str, sequence: str
) -> QueryDifference | None:
    """Return the letters in which an alignment's query differs from its chain, or None.

    X in either sequence agrees with any letter, because the programs that wrote structures and
    alignments have different tables of modified residues. The benchmark compares nothing.

    Raises:
        BrokenFile: the lengths differ, or more than 5 % of the letters. The alignment is then that
            of another protein.
    """
    return compare_letters(path, msa.query, chain_id=chain_id, sequence=sequence)


def compare_letters(
    path: Path, query: str, *, chain_id: str, sequence: str
) -> QueryDifference | None:
    """Compare the query of an alignment, given as its letters, as `compare_query` does."""
    if query == sequence:
        return None
    different = [
        (position, expected, actual)
        for position, (actual, expected) in enumerate(zip(query, sequence), start=1)
        if actual != expected and "X" not in (actual, expected)
    ]
    if len(query) != len(sequence):
        raise BrokenFile(
            path,
            f"its query has {len(query)} residues, but chain {chain_id} has {len(sequence)}"
            f"{_first_difference(different, min(len(query), len(sequence)))}",
            line=1,
        )
    if 100 * len(different) > MAX_DIFFERENT_PERCENT * len(sequence):
        position, expected, actual = different[0]
        raise BrokenFile(
            path,
            f"its query differs from chain {chain_id} in {len(different)} of {len(sequence)} "
            f"letters, at most {MAX_DIFFERENT_PERCENT} % may differ; the first: it has {actual} at "
            f"residue {position}, the chain has {expected}",
            line=1,
        )
    if not different:
        return None
    return QueryDifference(
        chain_id=chain_id,
        file=escaped(path.name),
        positions=tuple(position for position, _, _ in different),
        letters=tuple(f"{expected}>{actual}" for _, expected, actual in different),
    )


def _first_difference(different: Sequence[tuple[int, str, str]], num_compared: int) -> str:
    """Describe where two sequences of different lengths start to differ."""
    if not different:
        return f"; the first {num_compared} are the same"
    position, expected, actual = different[0]
    return f"; they first differ at residue {position}: it has {actual}, the chain has {expected}"
