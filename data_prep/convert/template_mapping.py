"""Filtering of template hits, and mapping of query residues to template residues.

The filters are those of AlphaFold2 supplement 1.2.3 with the benchmark's additions. The filter by
release date depends on the run, so the reader applies it. The mapping and its fallbacks follow the
benchmark, including its odd cases.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from data_prep.convert.realign import AlignmentError, realign
from data_prep.parsers.hhr import HhrHit
from openfold_opt.protein.hhblits_alphabet import sequence_to_tokens
from openfold_opt.protein.records import TemplateHit

MIN_ALIGNED_FRACTION = 0.1
"""Aligned columns per residue of the query; a hit must have more."""
MAX_COPY_FRACTION = 0.95
"""A hit that is a literal part of the query must not be longer, relative to the query."""
MIN_HIT_LETTERS = 10
MIN_ATOMS = 5
"""The atoms of one alanine, the smallest residue except glycine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Template:
    """The chain that a hit names."""

    pdb_id: str
    chain: str
    release_date: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Match:
    """The chain in which a hit was found, the aligned pairs, and their template residue types."""

    chain_id: str
    query_index: list[int]
    template_index: list[int]
    letters: str
    """The template residue of each pair."""


class TemplateChains(Protocol):
    """Look-up of the chains that can be templates."""

    def release_date(self, pdb_id: str) -> str | None:
        """Return the ISO date of an entry; None if there is no such entry."""

    def sequences(self, pdb_id: str) -> dict[str, str]:
        """Return the sequences of an entry by author chain, in canonical order."""

    def num_atoms(self, chain_id: str) -> np.ndarray:
        """Return the number of resolved atoms of each residue: int64 [N_res]."""

    def has_implausible_ca_distance(self, chain_id: str) -> bool:
        """Return whether the CA atoms of two consecutive residues are over 150 angstrom apart."""


def map_hits(
    hits: Sequence[HhrHit],
    query_sequence: str,
    *,
    library: TemplateChains,
    obsolete: Mapping[str, str],
) -> list[TemplateHit]:
    """Map the hits that pass all filters except those by release date and own entry.

    Returns:
        Hits by decreasing sum_probs; equal ones in the order of the file.
    """
    return list(iterate_hits(hits, query_sequence, library=library, obsolete=obsolete))


def iterate_hits(
    hits: Sequence[HhrHit],
    query_sequence: str,
    *,
    library: TemplateChains,
    obsolete: Mapping[str, str],
) -> Iterator[TemplateHit]:
    """Yield the hits of `map_hits`. The library is asked for the chains of a hit when it is next.

    A hit that fails a filter that needs no chain is skipped before the library is asked.
    """
    for hit in sorted(hits, key=lambda hit: -hit.sum_probs):
        if not _is_acceptable(hit, query_sequence):
            continue
        pdb_id, chain = hit.chain
        if library.release_date(pdb_id) is None:
            pdb_id = obsolete.get(pdb_id, pdb_id)
        release_date = library.release_date(pdb_id)
        if release_date is not None and chain in library.sequences(pdb_id):
            template = _Template(pdb_id=pdb_id, chain=chain, release_date=release_date)
            yield _map_hit(hit, query_sequence, template, library)


def _is_acceptable(hit: HhrHit, query_sequence: str) -> bool:
    letters = hit.hit_sequence.replace("-", "")
    is_copy = letters in query_sequence and len(letters) / len(query_sequence) > MAX_COPY_FRACTION
    covers_enough = hit.aligned_cols / len(query_sequence) > MIN_ALIGNED_FRACTION
    return covers_enough and not is_copy and len(letters) >= MIN_HIT_LETTERS


def _map_hit(
    hit: HhrHit, query_sequence: str, template: _Template, library: TemplateChains
) -> TemplateHit:
    pairs = _pairs(hit, query_sequence)
    pdb_id, chain = template.pdb_id, template.chain
    failure = ""
    try:
        match = _find_template(hit.hit_sequence.replace("-", ""), pairs, pdb_id, chain, library)
        failure = _unusable_reason(match, library)
    except AlignmentError as error:
        match = _Match(chain_id=f"{pdb_id}_{chain}", query_index=[], template_index=[], letters="")
        failure = str(error)
    return TemplateHit(
        name=match.chain_id,
        sum_probs=hit.sum_probs,
        release_date=template.release_date,
        query_index=np.array(match.query_index, dtype=np.int32),
        template_index=np.array(match.template_index, dtype=np.int32),
        template_tokens=sequence_to_tokens(match.letters),
        failure=failure,
    )


def _pairs(hit: HhrHit, query_sequence: str) -> dict[int, int]:
    """Map query residues to positions in the ungapped hit.

    The offset is the first position at which the ungapped query of the hit occurs in the query
    sequence, not the number in the .hhr file. Odd: if it does not occur, the offset is -1, and
    index -1 then denotes the last residue.
    """
    if not hit.query.strip("-") or not hit.hit_sequence.strip("-"):
        return {}
    offset = query_sequence.find(hit.query.replace("-", ""))
    first_query = min(i for i in hit.indices_query if i >= 0)
    first_hit = min(i for i in hit.indices_hit if i >= 0)
    pairs: dict[int, int] = {}
    for q, t in zip(hit.indices_query, hit.indices_hit):
        position = q - first_query + offset
        if q >= 0 and t >= 0 and position < len(query_sequence):
            pairs[position] = t - first_hit
    wrapped = pairs.pop(-1, None)
    if wrapped is not None:
        pairs.setdefault(len(query_sequence) - 1, wrapped)
    return pairs


def _find_template(
    letters: str, pairs: dict[int, int], pdb_id: str, chain: str, library: TemplateChains
) -> _Match:
    """Find the letters of a hit in an entry.

    They are searched in the chain of the hit, then in all chains of the entry, then with X as a
    wildcard. If this fails, they are realigned to the chain of the hit.
    """
    sequences = library.sequences(pdb_id)
    location = _locate(letters, chain, sequences)
    if location is not None:
        matching_chain, offset = location
        return _Match(
            chain_id=f"{pdb_id}_{matching_chain}",
            query_index=list(pairs),
            template_index=[position + offset for position in pairs.values()],
            letters="".join(letters[position] for position in pairs.values()),
        )
    actual = sequences[chain]
    new_position = realign(letters, actual)
    # Odd: residues of the hit without a partner in the chain are mapped to its last residue.
    positions = [new_position.get(position, len(actual) - 1) for position in pairs.values()]
    return _Match(
        chain_id=f"{pdb_id}_{chain}",
        query_index=list(pairs),
        template_index=positions,
        letters="".join(actual[position] for position in positions),
    )


def _locate(letters: str, chain: str, sequences: Mapping[str, str]) -> tuple[str, int] | None:
    for candidate in [chain, *sequences]:
        offset = sequences[candidate].find(letters)
        if offset >= 0:
            return candidate, offset
    pattern = re.compile("".join("." if letter == "X" else f"[{letter}X]" for letter in letters))
    for candidate, sequence in sequences.items():
        match = pattern.search(sequence)
        if match:
            return candidate, match.start()
    return None


def _unusable_reason(match: _Match, library: TemplateChains) -> str:
    """Return why the atoms cannot be used, or an empty string."""
    num_atoms = library.num_atoms(match.chain_id)
    if library.has_implausible_ca_distance(match.chain_id):
        return f"consecutive CA atoms of {match.chain_id} are too far apart"
    resolved = int(num_atoms[match.template_index].sum())
    if resolved < MIN_ATOMS:
        return (
            f"the aligned part of {match.chain_id} has {resolved} atoms, "
            f"expected at least {MIN_ATOMS}"
        )
    return ""
