"""The second half of conversion: alignment folders to alignment shards, with template hits mapped onto the chains of the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.convert.alignment_sources import AlignmentUnit
from data_prep.convert.plan import Chunk
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.template_mapping import map_hits
from data_prep.convert.work import Errors
from data_prep.parsers.errors import BrokenFile
from data_prep.parsers.hhr import HhrHit, parse_hhr
from data_prep.parsers.msa import ParsedMsa, merge_without_duplicates, parse_msa
from openfold_opt.protein.hhblits_alphabet import NUM_TOKENS, sequence_to_tokens
from openfold_opt.protein.records import TemplateHit
from openfold_opt.protein.shard_format import encode_strings, offsets

KIND = "alignments"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedAlignment:
    """One alignment with the template hits of each distinct sequence among its chains (as good as always one)."""

    alignment_id: str
    tokens: np.ndarray
    deletion_row_lengths: np.ndarray
    deletion_column: np.ndarray
    deletion_count: np.ndarray
    token_counts: np.ndarray
    members: tuple[tuple[str, int], ...]
    """(chain id, which of the hit sets)."""
    hit_sets: tuple[list[TemplateHit], ...]


class AlignmentShardBuilder:
    """Makes alignment shards; holds what all of them need."""

    def __init__(self, *, library: TemplateLibrary, obsolete: Mapping[str, str]) -> None:
        self._library = library
        self._obsolete = obsolete

    def __call__(self, chunk: Chunk, errors: Errors, progress: tqdm) -> Mapping[str, np.ndarray]:
        """Datasets of an alignment shard. A file that cannot be used is an error of its unit."""
        alignments = []
        for unit in chunk.units:
            try:
                alignments.append(self._parse(unit))
            except BrokenFile as error:
                errors.add(error)
            progress.update()
        return _alignment_arrays(alignments)

    def _parse(self, unit: AlignmentUnit) -> ParsedAlignment:
        sequence_of = {chain_id: self._library.sequence(chain_id) for chain_id in unit.members}
        sequences = list(dict.fromkeys(sequence_of.values()))
        parsed = {path: parse_msa(path) for path in unit.msa_paths}
        msas = {path: msa for path, msa in parsed.items() if msa is not None}
        for chain_id, sequence in sequence_of.items():
            for path, msa in msas.items():
                check_query(path, msa, chain_id=chain_id, sequence=sequence)
        tokens, deletions = _rows(list(msas.values()), sequences[0])
        hits = _read_hits(unit.hits_path) if unit.hits_path else []
        rows, columns = np.nonzero(deletions)
        return ParsedAlignment(
            alignment_id=unit.alignment_id,
            tokens=tokens,
            deletion_row_lengths=np.bincount(rows, minlength=len(tokens)),
            deletion_column=columns.astype(np.uint16),
            deletion_count=deletions[rows, columns],
            token_counts=count_tokens(tokens),
            members=tuple((chain_id, sequences.index(sequence)) for chain_id, sequence in sequence_of.items()),
            hit_sets=tuple(self._map(hits, sequence) for sequence in sequences),
        )

    def _map(self, hits: Sequence[HhrHit], sequence: str) -> list[TemplateHit]:
        return map_hits(hits, sequence, library=self._library, obsolete=self._obsolete)


def _read_hits(path: Path) -> list[HhrHit]:
    hits = parse_hhr(path)
    for hit in hits:
        try:
            hit.chain
        except ValueError as error:
            raise BrokenFile(path, str(error)) from error
    return hits


def check_query(path: Path, msa: ParsedMsa, *, chain_id: str, sequence: str) -> None:
    """BrokenFile unless the first row is the chain's sequence. X, on either side, agrees with any letter: tables of modified
    residues differ between the programs that wrote structures and alignments."""
    query = msa.query
    if len(query) != len(sequence):
        raise BrokenFile(path, f"its query has {len(query)} residues, but chain {chain_id} has {len(sequence)}", line=1)
    for place, (found, expected) in enumerate(zip(query, sequence), start=1):
        if found != expected and "X" not in (found, expected):
            raise BrokenFile(path, f"its query has {found} at residue {place}, but chain {chain_id} has {expected}", line=1)


def _rows(msas: list[ParsedMsa], sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and deletions of all files; the sequence alone if there is none."""
    if not msas:
        tokens = sequence_to_tokens(sequence)[None]
        return tokens, np.zeros(tokens.shape, dtype=np.int32)
    return merge_without_duplicates(msas)


def count_tokens(tokens: np.ndarray) -> np.ndarray:
    """How often each token stands in each column: int32 [N_res, 22] from uint8 [N_seq, N_res]."""
    counts = [np.count_nonzero(tokens == token, axis=0) for token in range(NUM_TOKENS)]
    return np.stack(counts, axis=1).astype(np.int32)


def _alignment_arrays(alignments: list[ParsedAlignment]) -> dict[str, np.ndarray]:
    indptr = offsets(length for alignment in alignments for length in alignment.deletion_row_lengths.tolist())
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
        "msa": _joined([alignment.tokens.reshape(-1) for alignment in alignments], np.uint8),
        "deletion_indptr": indptr,
        "deletion_column": _joined([alignment.deletion_column for alignment in alignments], np.uint16),
        "deletion_count": _joined([alignment.deletion_count for alignment in alignments], np.int32),
        "token_counts": np.concatenate(
            [np.zeros((0, NUM_TOKENS), dtype=np.int32), *(alignment.token_counts for alignment in alignments)]
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
        "pair_query": _joined([hit.query_index for hit in hits], np.int32),
        "pair_template": _joined([hit.template_index for hit in hits], np.int32),
        "pair_token": _joined([hit.template_tokens for hit in hits], np.uint8),
    }


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts])
