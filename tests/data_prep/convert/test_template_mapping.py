"""Mapping and filters of template hits. test_convert_golden.py compares real hits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from data_prep.convert.realign import AlignmentError, realign
from data_prep.convert.template_mapping import map_hits
from data_prep.parsers.hhr import HhrHit

QUERY = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEV"
CHAIN = "GSHMKTAYLAKQRQISWVKSHFSRQLEERLG"


class Library:
    """A template library with the chains of one entry, 1tpl. Residues have 4 atoms by default."""

    def __init__(self, sequences, *, atoms_per_residue=4, has_break=False):
        self._sequences, self._atoms, self._has_break = sequences, atoms_per_residue, has_break

    def release_date(self, pdb_id):
        return "2000-01-01" if pdb_id == "1tpl" else None

    def sequences(self, pdb_id):
        return self._sequences

    def num_atoms(self, chain_id):
        return np.full(len(self._sequences[chain_id[5:]]), self._atoms)

    def has_implausible_ca_distance(self, chain_id):
        return self._has_break


def hit(query, template, *, name="1TPL_A", sum_probs=10.0, index=1):
    def residue_indices(row):
        ungapped = np.cumsum([letter != "-" for letter in row]) + 4
        return tuple(-1 if letter == "-" else int(index) for letter, index in zip(row, ungapped))

    columns = sum(q != "-" and t != "-" for q, t in zip(query, template))
    return HhrHit(
        index=index,
        name=name,
        aligned_cols=columns,
        sum_probs=sum_probs,
        query=query,
        hit_sequence=template,
        indices_query=residue_indices(query),
        indices_hit=residue_indices(template),
    )


def map_one(template_hit, library, obsolete=()):
    return map_hits([template_hit], QUERY, library=library, obsolete=dict(obsolete))


def test_gaps_and_offsets():
    (mapped,) = map_one(
        hit(QUERY[2:8] + "--" + QUERY[8:16], CHAIN[5:10] + "-" + CHAIN[10:20]),
        Library({"A": CHAIN}),
    )
    assert mapped.query_index.tolist() == [2, 3, 4, 5, 6, *range(8, 16)]
    assert mapped.template_index.tolist() == [5, 6, 7, 8, 9, *range(12, 20)]
    assert mapped.is_featurizable and mapped.name == "1tpl_A"


def test_same_chain_then_any_chain_then_wildcard():
    template_hit = hit(QUERY[:20], CHAIN[3:23])
    assert map_one(template_hit, Library({"B": CHAIN, "A": CHAIN}))[0].name == "1tpl_A"
    assert map_one(template_hit, Library({"A": "W" * 40, "B": CHAIN}))[0].name == "1tpl_B"
    with_unknown = CHAIN.replace("YLA", "YXA")
    mapped = map_one(template_hit, Library({"A": "W" * 40, "C": with_unknown}))[0]
    assert (
        mapped.name == "1tpl_C" and mapped.template_tokens[5] == 9
    )  # The letter is that of the hit: L.


def test_realigned_residues_without_partner_map_to_the_last():
    shorter = CHAIN[:8] + CHAIN[9:]
    mapped = map_one(hit(QUERY[:28], CHAIN[3:31]), Library({"A": shorter}))[0]
    assert mapped.is_featurizable
    lost = [
        q
        for q, t in zip(mapped.query_index.tolist(), mapped.template_index.tolist())
        if t == len(shorter) - 1
    ]
    assert len(lost) == 2  # The deleted residue and the last residue.
    assert mapped.template_index.max() == len(shorter) - 1


def test_different_chain_is_a_failure():
    mapped = map_one(hit(QUERY[:20], CHAIN[3:23]), Library({"A": "WCWCWCWCWCWCWCWCWCWCWCWCWC"}))[0]
    assert (
        not mapped.is_featurizable
        and "identical" in mapped.failure
        and len(mapped.query_index) == 0
    )


@pytest.mark.parametrize(
    "filtered_hit",
    [
        hit(QUERY[:20], CHAIN[3:23], name="9ZZZ_A"),
        hit(QUERY[:20], CHAIN[3:23], name="1TPL_a"),
        hit(QUERY[:9], CHAIN[3:12]),
        hit(QUERY, QUERY),
        dataclasses.replace(hit(QUERY[:20], CHAIN[3:23]), aligned_cols=3),
    ],
)
def test_filters(filtered_hit):
    assert map_one(filtered_hit, Library({"A": CHAIN})) == []


def test_copy_of_most_of_the_query_is_filtered_out():
    assert len(map_one(hit(QUERY[:30], QUERY[:30]), Library({"A": QUERY}))) == 1
    assert len(map_one(hit(QUERY[:31], QUERY[:31]), Library({"A": QUERY}))) == 0


def test_obsolete_entry():
    assert (
        map_one(
            hit(QUERY[:20], CHAIN[3:23], name="1OLD_A"), Library({"A": CHAIN}), {"1old": "1tpl"}
        )[0].name
        == "1tpl_A"
    )


def test_equal_scores_keep_their_order():
    hits = [
        hit(QUERY[:20], CHAIN[3:23], sum_probs=score, name=f"1TPL_{chain}")
        for score, chain in [(1, "A"), (3, "B"), (1, "C"), (3, "D")]
    ]
    library = Library(dict.fromkeys("ABCD", CHAIN))
    assert [mapped.name[-1] for mapped in map_hits(hits, QUERY, library=library, obsolete={})] == [
        "B",
        "D",
        "A",
        "C",
    ]


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (Library({"A": CHAIN}, atoms_per_residue=0), "0 atoms"),
        (Library({"A": CHAIN}, has_break=True), "too far apart"),
    ],
)
def test_unusable_atoms(library, reason):
    (mapped,) = map_one(hit(QUERY[:20], CHAIN[3:23]), library)
    assert reason in mapped.failure


def test_query_that_does_not_occur_is_shifted_by_one():
    """Odd, as in the benchmark: a pair before the first residue is mapped to the last residue."""
    (mapped,) = map_one(hit("W" + QUERY[1:20], CHAIN[3:23]), Library({"A": CHAIN}))
    assert sorted(mapped.query_index.tolist()) == [*range(19), len(QUERY) - 1]


def test_realign():
    assert realign("ACDEFGHIKL", "ACDEFGHIKL") == {i: i for i in range(10)}
    with pytest.raises(AlignmentError, match="too short"):
        realign("ACDEF", "ACDEFGHIKL")
    with pytest.raises(AlignmentError, match="identical"):
        realign("ACDEFGHIKL", "WWWWWYYYYY")
