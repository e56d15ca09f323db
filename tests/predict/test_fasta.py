"""FASTA records and the letters of a sequence."""

from __future__ import annotations

import pytest

from openfold_opt.predict.chain_input import InputError
from openfold_opt.predict.fasta import MAX_RESIDUES, check_sequence, parse_fasta

GOOD = "ACDEFGHIKLMNPQRSTVWY"


def records(text):
    return [(record.name, record.letters) for record in parse_fasta(text.splitlines(), "x.fasta")]


def test_names_are_the_first_word_and_sequences_may_be_wrapped():
    text = ">sp|P1|A_B some text\nACD EF\n\tGHI \n\n; comment\n# comment\n>b/c\nKL\n"
    assert records(text) == [("sp|P1|A_B", "ACDEFGHI"), ("b/c", "KL")]
    assert records(">\nACD\n> b\nKL\n") == [("", "ACD"), ("b", "KL")]
    assert [(r.number, r.line) for r in parse_fasta(["", ">a", "A", ">b"], "x")] == [(1, 2), (2, 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.fasta has no sequence"),
        ("\n; nothing\n", "x.fasta has no sequence"),
        ("\nACDEF\n>a\nACD\n", "x.fasta:2: found 'ACDEF' before the first header"),
    ],
)
def test_text_that_is_no_fasta(text, message):
    with pytest.raises(InputError, match=message):
        records(text)


def test_amino_acids_stay_as_they_are():
    checked = check_sequence(GOOD)
    assert checked.sequence == checked.letters == GOOD and checked.warnings == ()


@pytest.mark.parametrize("letter", "XBJOUZ")
def test_other_letters_of_residues_are_unknown_residues(letter):
    checked = check_sequence(GOOD + letter + GOOD + letter)
    assert checked.sequence == GOOD + "X" + GOOD + "X"
    assert checked.letters == GOOD + letter + GOOD + letter
    (warning,) = checked.warnings
    assert warning.startswith(f"{letter} at 21, 42: the model reads an unknown residue")


def test_many_unknown_residues_are_counted():
    (warning,) = check_sequence("X" * 30).warnings
    assert warning.startswith("X at 1, 2, 3, 4, 5 and 25 more")


def test_lower_case_and_a_stop_codon_at_the_end_are_accepted():
    checked = check_sequence(GOOD.lower() + "u*")
    assert checked.letters == GOOD + "U" and checked.sequence == GOOD + "X"
    text = " ".join(checked.warnings)
    assert "lower case" in text and "stop codon, is removed" in text and "U at 21" in text


@pytest.mark.parametrize(
    ("letters", "message"),
    [
        ("", "the sequence is empty"),
        ("*", "the sequence is empty"),
        ("ACD*EFG", r"the stop codon '\*' at position 4"),
        ("AC-D", "the gap '-' at position 3 of the sequence; remove the gaps"),
        (".ACD", "the gap '.' at position 1"),
        ("ACD:EFG", "':' at position 4 .*single chains: write each chain as a record of its own"),
        ("ACD1", "'1' at position 4 of the sequence; expected letters of amino acids only"),
        ("AC\xdf", "'\xdf' at position 3"),
        ("AC\x00", r"'\\x00' at position 3"),
        ("A" * (MAX_RESIDUES + 1), "65,536 residues, expected at most 65,535"),
    ],
)
def test_letters_that_are_no_residues(letters, message):
    with pytest.raises(InputError, match=message):
        check_sequence(letters)


def test_short_sequences_give_a_warning():
    assert check_sequence(GOOD[:16]).warnings == ()
    (warning,) = check_sequence(GOOD[:15]).warnings
    assert "has 15 residues" in warning and "fewer than 16" in warning
