"""Comparison of chains by id and by sequence."""

import pytest

from openfold_opt.protein.same_chain import SequenceTable, comparable_id


def test_the_case_of_an_id_does_not_matter():
    assert comparable_id("1ABC_a") == comparable_id("1abc_A")


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("MKAV", "first"),
        ("MKXV", "first"),
        ("XXXX", "first"),
        ("MKGV", None),
        ("MKA", None),
        ("GSXW", "second"),
        ("GSAW", "second"),
        ("GTAW", None),
    ],
    ids=["equal", "unknown", "all unknown", "other", "shorter", "rare", "rare as A", "not rare"],
)
def test_ambiguous_letters_are_the_same_as_any(sequence, expected):
    table = SequenceTable({"first": "MKAV", "second": "GSUW"})
    assert table.find(sequence) == expected


def test_chains_are_found_by_length():
    table = SequenceTable({"first": "MKAV", "copy": "MKAV"})
    assert table.has_length(4) and not table.has_length(5)
    assert table.find("MKAV") == "first"
