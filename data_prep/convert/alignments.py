"""The second half of conversion: alignment folders to alignment shards.

Template hits are mapped onto the chains of the structure shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.findings import Findings, QueryDifference
from data_prep.convert.plan import Chunk
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.template_mapping import map_hits
from data_prep.errors import BrokenFile, CannotRead, escaped
from data_prep.parsers.hhr import HhrHit, parse_hhr
from data_prep.parsers.msa import ParsedMsa, merge_without_duplicates, parse_msa
from data_prep.progress import Progress
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS, sequence_to_tokens
from openfold_opt.protein.records import TemplateHit
from openfold_opt.protein.shard_format import encode_strings, offsets

KIND = "alignments"
MAX_DIFFERENT_PERCENT = 5
"""Maximum percentage of letters in which a chain and the query of its alignment may differ."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedAlignment:
    """An alignment with one set of template hits per distinct sequence among its chains.

    Almost always there is one distinct sequence.
    """

    alignment_id: str
    tokens: np.ndarray
    """uint8 [N_seq, N_res]."""
    deletion_row_lengths: np.ndarray
    """Number of columns with deletions in each row, [N_seq]."""
    deletion_column: np.ndarray
    """uint16 [num_deletions], row by row."""
    deletion_count: np.ndarray
    """int32 [num_deletions]."""
    token_counts: np.ndarray
    """int32 [N_res, 22]."""
    members: tuple[tuple[str, int], ...]
    """(chain id, index of its hit set)."""
    hit_sets: tuple[list[TemplateHit], ...]


class AlignmentShardBuilder:
    """Builds the datasets of alignment shards."""

    def __init__(self, *, library: TemplateLibrary, obsolete: Mapping[str, str]) -> None:
        self._library = library
        self._obsolete = obsolete

    def __call__(
        self, chunk: Chunk, findings: Findings, progress: Progress
    ) -> Mapping[str, np.ndarray]:
        """Return the datasets of an alignment shard.

        If the contents of a file cannot be used, its chains are rejected. A file that cannot be
        read is an error.
        """
        alignments = []
        for unit in chunk.units:
            try:
                parsed = self._parse(unit, findings)
                if parsed is not None:
                    alignments.append(parsed)
            except BrokenFile as error:
                for chain_id in unit.members:
                    findings.reject_chain(chain_id, error)
            except CannotRead as error:
                findings.add_error(error)
            progress.update()
        return _alignment_arrays(alignments)

    def _parse(self, unit: AlignmentUnit, findings: Findings) -> ParsedAlignment | None:
        """Parse the files of a unit. Return None if all its chains are rejected."""
        parsed = {path: parse_msa(path) for path in unit.msa_paths}
        msas = {path: msa for path, msa in parsed.items() if msa is not None}
        hits = [hit for path in unit.hits_paths for hit in _read_hits(path)]
        sequence_of = {}
        for chain_id in unit.members:
            sequence = self._library.sequence(chain_id)
            try:
                differences = [
                    compare_query(path, msa, chain_id=chain_id, sequence=sequence)
                    for path, msa in msas.items()
                ]
            except BrokenFile as error:
                findings.reject_chain(chain_id, error)
                continue
            findings.differences.extend(
                difference for difference in differences if difference is not None
            )
            sequence_of[chain_id] = sequence
        return (
            _parsed_alignment(unit, list(msas.values()), sequence_of, self._mapper(hits))
            if sequence_of
            else None
        )

    def _mapper(self, hits: Sequence[HhrHit]) -> Callable[[str], list[TemplateHit]]:
        return lambda sequence: map_hits(
            hits, sequence, library=self._library, obsolete=self._obsolete
        )


def _parsed_alignment(
    unit: AlignmentUnit,
    msas: list[ParsedMsa],
    sequence_of: Mapping[str, str],
    map_to: Callable[[str], list[TemplateHit]],
) -> ParsedAlignment:
    sequences = list(dict.fromkeys(sequence_of.values()))
    tokens, deletions = _rows(msas, sequences[0])
    rows, columns = np.nonzero(deletions)
    return ParsedAlignment(
        alignment_id=unit.alignment_id,
        tokens=tokens,
        deletion_row_lengths=np.bincount(rows, minlength=len(tokens)),
        deletion_column=columns.astype(np.uint16),
        deletion_count=deletions[rows, columns],
        token_counts=count_tokens(tokens),
        members=tuple(
            (chain_id, sequences.index(sequence)) for chain_id, sequence in sequence_of.items()
        ),
        hit_sets=tuple(map_to(sequence) for sequence in sequences),
    )


def _read_hits(path: Path) -> list[HhrHit]:
    hits = parse_hhr(path)
    for hit in hits:
        try:
            _ = hit.chain  # This raises ValueError for a malformed name.
        except ValueError as error:
            raise BrokenFile(path, str(error)) from error
    return hits


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
    query = msa.query
    if query == sequence:
        return None
    if len(query) != len(sequence):
        raise BrokenFile(
            path,
            f"its query has {len(query)} residues, but chain {chain_id} has {len(sequence)}",
            line=1,
        )
    different = [
        (position, expected, actual)
        for position, (actual, expected) in enumerate(zip(query, sequence), start=1)
        if actual != expected and "X" not in (actual, expected)
    ]
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


def _rows(msas: list[ParsedMsa], sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and deletions of all files; without files, the sequence is the only row."""
    if not msas:
        tokens = sequence_to_tokens(sequence)[None]
        return tokens, np.zeros(tokens.shape, dtype=np.int32)
    return merge_without_duplicates(msas)


def count_tokens(tokens: np.ndarray) -> np.ndarray:
    """Count the tokens in each column: int32 [N_res, 22] from uint8 [N_seq, N_res]."""
    counts = [np.count_nonzero(tokens == token, axis=0) for token in range(NUM_TOKENS)]
    return np.stack(counts, axis=1).astype(np.int32)


def _alignment_arrays(alignments: list[ParsedAlignment]) -> dict[str, np.ndarray]:
    indptr = offsets(
        length for alignment in alignments for length in alignment.deletion_row_lengths.tolist()
    )
    first_hit_set = np.cumsum([0, *(len(alignment.hit_sets) for alignment in alignments)])
    members = [
        (chain_id, row, int(first_hit_set[row]) + hit_set)
        for row, alignment in enumerate(alignments)
        for chain_id, hit_set in alignment.members
    ]
    return {
        "alignment_id": encode_strings(alignment.alignment_id for alignment in alignments),
        "row_offset": offsets(len(alignment.tokens) for alignment in alignments),
        "residue_offset": offsets(alignment.tokens.shape[1] for alignment in alignments),
        "msa_offset": offsets(alignment.tokens.size for alignment in alignments),
        "msa": _concatenate([alignment.tokens.reshape(-1) for alignment in alignments], np.uint8),
        "deletion_indptr": indptr,
        "deletion_column": _concatenate(
            [alignment.deletion_column for alignment in alignments], np.uint16
        ),
        "deletion_count": _concatenate(
            [alignment.deletion_count for alignment in alignments], np.int32
        ),
        "token_counts": np.concatenate(
            [
                np.zeros((0, NUM_TOKENS), dtype=np.int32),
                *(alignment.token_counts for alignment in alignments),
            ]
        ),
        "member_chain_id": encode_strings(chain_id for chain_id, _, _ in members),
        "member_row": np.array([row for _, row, _ in members], dtype=np.int64),
        "member_hit_set": np.array([hit_set for _, _, hit_set in members], dtype=np.int64),
        **_hit_arrays([hits for alignment in alignments for hits in alignment.hit_sets]),
    }


def _hit_arrays(hit_sets: list[list[TemplateHit]]) -> dict[str, np.ndarray]:
    hits = [hit for hit_set in hit_sets for hit in hit_set]
    return {
        "hit_offset": offsets(len(hit_set) for hit_set in hit_sets),
        "hit_name": encode_strings(hit.name for hit in hits),
        "hit_release_date": encode_strings(hit.release_date for hit in hits),
        "hit_sum_probs": np.array([hit.sum_probs for hit in hits], dtype=np.float64),
        "hit_failure": encode_strings(hit.failure for hit in hits),
        "pair_offset": offsets(len(hit.query_index) for hit in hits),
        "pair_query": _concatenate([hit.query_index for hit in hits], np.int32),
        "pair_template": _concatenate([hit.template_index for hit in hits], np.int32),
        "pair_token": _concatenate([hit.template_tokens for hit in hits], np.uint8),
    }


def _concatenate(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts])
