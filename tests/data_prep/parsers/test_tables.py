"""Parsers of the cluster file, of obsolete entries and of chains that share an alignment."""

from __future__ import annotations

import pytest

from data_prep.errors import BrokenFile
from data_prep.parsers.tables import read_clusters, read_duplicates, read_obsolete


def test_clusters_are_numbered_from_zero_and_upper_case(tmp_path):
    (tmp_path / "c.txt").write_text("1abc_1 2ABC_2\n3ABC_1\n")
    assert read_clusters(tmp_path / "c.txt") == {"1ABC_1": 0, "2ABC_2": 0, "3ABC_1": 1}
    (tmp_path / "c.txt").write_text("\n")
    with pytest.raises(BrokenFile, match="is empty"):
        read_clusters(tmp_path / "c.txt")


def test_a_name_in_two_clusters_is_refused(tmp_path):
    (tmp_path / "c.txt").write_text("1abc_1 1abc_1 2abc_2\n3abc_1 1ABC_1\n")
    with pytest.raises(BrokenFile, match="1ABC_1 is in two clusters"):
        read_clusters(tmp_path / "c.txt")


def test_obsolete_takes_the_first_successor_of_long_enough_lines(tmp_path):
    (tmp_path / "o.dat").write_text(
        " LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS\n"
        "OBSLTE    31-JUL-94 116L     216L\n"
        "OBSLTE    26-SEP-06 2H33     2JM5 2OWI\n"
        "OBSLTE    29-JAN-96 125D     \n"
    )
    assert read_obsolete(tmp_path / "o.dat") == {"116l": "216l", "2h33": "2jm5"}


def test_duplicates(tmp_path):
    (tmp_path / "d.txt").write_text("1abc_A 1abc_B\n2abc_A\n")
    assert read_duplicates(tmp_path / "d.txt") == [["1abc_A", "1abc_B"], ["2abc_A"]]
    (tmp_path / "d.txt").write_text("1abc_A 1abc_B\n1abc_B\n")
    with pytest.raises(BrokenFile, match="1abc_B is in two groups"):
        read_duplicates(tmp_path / "d.txt")
