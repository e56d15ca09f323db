"""Letters of modified residues."""

from __future__ import annotations

from data_prep.parsers.residue_letters import LETTER_OF


def test_letters_of_modified_residues():
    expected = {"ALA": "A", "MSE": "M", "SEC": "A", "ASX": "B", "GLX": "Z", "PBF": "F"}
    assert {name: LETTER_OF[name] for name in expected} == expected
    assert "PYL" not in LETTER_OF or LETTER_OF["PYL"] == "X"
    assert all(len(letter) == 1 for letter in LETTER_OF.values()) and "CRO" not in LETTER_OF
