"""The second half of conversion: alignment folders to alignment shards.

Template hits are mapped onto the chains of the structure shards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data_prep.convert.alignment_record import compare_query, make_alignment_record
from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.findings import Findings
from data_prep.convert.plan import Chunk
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.template_mapping import map_hits
from data_prep.errors import BrokenFile, CannotRead, EntryRejected
from data_prep.parsers.hhr import HhrHit, parse_named_hits
from data_prep.parsers.msa import ParsedMsa, parse_msa
from data_prep.progress import Progress
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS
from openfold_opt.protein.records import AlignmentRecord, TemplateHit
from openfold_opt.protein.shard_format import encode_strings, offsets

KIND = "alignments"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedAlignment:
    """An alignment with one set of template hits per distinct sequence among its chains.

    Almost always there is one distinct sequence.
    """

    alignment_id: str
    record: AlignmentRecord
    members: tuple[tuple[str, int], ...]
    """(chain id, index of its hit set)."""
    hit_sets: tuple[list[TemplateHit], ...]


class AlignmentShardBuilder:
    """Builds the datasets of alignment shards."""

    def __init__(
        self, *, library: TemplateLibrary, obsolete: Mapping[str, str], min_rows: int = 0
    ) -> None:
        """min_rows: chains whose alignment has fewer rows, without duplicates, are rejected."""
        self._library = library
        self._obsolete = obsolete
        self._min_rows = min_rows

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
        hits = [hit for path in unit.hits_paths for hit in parse_named_hits(path)]
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
        if not sequence_of:
            return None
        alignment = _parsed_alignment(unit, list(msas.values()), sequence_of, self._mapper(hits))
        num_rows = alignment.record.num_sequences
        if num_rows >= self._min_rows:
            return alignment
        for chain_id in sequence_of:
            findings.reject_chain(chain_id, few_rows(num_rows, self._min_rows), is_faulty=False)
        return None

    def _mapper(self, hits: Sequence[HhrHit]) -> Callable[[str], list[TemplateHit]]:
        return lambda sequence: map_hits(
            hits, sequence, library=self._library, obsolete=self._obsolete
        )


def few_rows(num_rows: int, min_rows: int) -> EntryRejected:
    """Return the reason to reject a chain whose alignment has too few rows."""
    return EntryRejected(
        f"few alignment rows: {num_rows:,} without duplicates, expected at least {min_rows:,}"
    )


def _parsed_alignment(
    unit: AlignmentUnit,
    msas: list[ParsedMsa],
    sequence_of: Mapping[str, str],
    map_to: Callable[[str], list[TemplateHit]],
) -> ParsedAlignment:
    sequences = list(dict.fromkeys(sequence_of.values()))
    return ParsedAlignment(
        alignment_id=unit.alignment_id,
        record=make_alignment_record(msas, sequences[0]),
        members=tuple(
            (chain_id, sequences.index(sequence)) for chain_id, sequence in sequence_of.items()
        ),
        hit_sets=tuple(map_to(sequence) for sequence in sequences),
    )


def _alignment_arrays(alignments: list[ParsedAlignment]) -> dict[str, np.ndarray]:
    records = [alignment.record for alignment in alignments]
    indptr = offsets(
        length for record in records for length in np.diff(record.deletion_indptr).tolist()
    )
    first_hit_set = np.cumsum([0, *(len(alignment.hit_sets) for alignment in alignments)])
    members = [
        (chain_id, row, int(first_hit_set[row]) + hit_set)
        for row, alignment in enumerate(alignments)
        for chain_id, hit_set in alignment.members
    ]
    return {
        "alignment_id": encode_strings(alignment.alignment_id for alignment in alignments),
        "row_offset": offsets(len(record.msa) for record in records),
        "residue_offset": offsets(record.msa.shape[1] for record in records),
        "msa_offset": offsets(record.msa.size for record in records),
        "msa": _concatenate([record.msa.reshape(-1) for record in records], np.uint8),
        "deletion_indptr": indptr,
        "deletion_column": _concatenate([record.deletion_column for record in records], np.uint16),
        "deletion_count": _concatenate([record.deletion_count for record in records], np.int32),
        "token_counts": np.concatenate(
            [
                np.zeros((0, NUM_TOKENS), dtype=np.int32),
                *(record.token_counts for record in records),
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
