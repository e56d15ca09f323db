"""Alignment parsers against simple loops, and the rules about duplicates, deletions, letters."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from data_prep.errors import BrokenFile
from data_prep.parsers.msa import merge_without_duplicates, parse_msa
from openfold_opt.protein.hhblits_alphabet import LETTERS


def parse_a3m_by_letter(text):
    """Return aligned rows and deletion counts, parsed letter by letter."""
    rows, deletions = [], []
    for sequence in ["".join(record.split("\n")[1:]) for record in text.split(">")[1:]]:
        row, counts, count = "", [], 0
        for letter in sequence:
            if letter.islower():
                count += 1
            else:
                row, counts, count = row + letter, [*counts, count], 0
        rows.append(row)
        deletions.append(counts)
    return rows, deletions


def random_a3m(num_rows, width, seed):
    rng = np.random.default_rng(seed)
    lines = [">query", "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), width))]
    for i in range(num_rows - 1):
        letters = rng.choice(list("ACDEFGHIKLMNPQRSTVWYBZUJOX------"), width)
        inserts = [
            "".join(rng.choice(list("abcxyz"), rng.integers(0, 4) * (rng.random() < 0.2)))
            for _ in range(width + 1)
        ]
        lines += [
            f">row{i} with | words",
            "".join(a + b for a, b in zip(inserts, letters)) + inserts[-1],
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["uniref90_hits.a3m", "uniref90_hits.a3m.gz"])
def test_a3m_equals_parsing_by_letter(tmp_path, name):
    text = random_a3m(40, 31, seed=1)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    msa = parse_msa(path)
    rows, deletions = parse_a3m_by_letter(text)
    assert [row.tobytes().decode() for row in msa.letters] == rows
    np.testing.assert_array_equal(msa.deletions, deletions)
    assert msa.deletions.dtype == np.int32 and msa.deletions.sum() > 0
    assert msa.query == rows[0]


def test_wrapped_lines_comments_and_carriage_returns(tmp_path):
    path = tmp_path / "x.a3m"
    path.write_bytes(b"# comment\r\n>q\r\nACD\r\nEF\r\n\r\n>s\r\nA-dd\r\nDEFgg\r\n")
    msa = parse_msa(path)
    assert [row.tobytes() for row in msa.letters] == [b"ACDEF", b"A-DEF"]
    np.testing.assert_array_equal(msa.deletions, [[0, 0, 0, 0, 0], [0, 0, 2, 0, 0]])


def test_stockholm_equals_its_a3m(tmp_path):
    sto = (
        "# STOCKHOLM 1.0\n#=GS a DE text\nq  A-CD\nr  AECD\n#=GC RF xxxx\n\nq  --EF\nr  GH--\n//\n"
    )
    (tmp_path / "x.sto").write_text(sto)
    (tmp_path / "x.a3m").write_text(">q\nACDEF\n>r\nAeCDgh--\n")
    from_sto, from_a3m = parse_msa(tmp_path / "x.sto"), parse_msa(tmp_path / "x.a3m")
    np.testing.assert_array_equal(from_sto.letters, from_a3m.letters)
    np.testing.assert_array_equal(from_sto.deletions, from_a3m.deletions)


def test_query_is_the_first_row_of_a_real_stockholm_file(shared):
    paths = sorted((shared / "data" / "other_alignments").rglob("*.sto*"))
    assert paths
    for path in paths:
        msa = parse_msa(path)
        assert "-" not in msa.query and msa.deletions.shape == msa.letters.shape


def test_duplicates_are_compared_as_letters(tmp_path):
    (tmp_path / "a.a3m").write_text(">q\nACD\n>s\nACB\n>t\nAcCD\n")
    (tmp_path / "b.a3m").write_text(">q\nACD\n>s\nddACB\n>u\n-CD\n")
    tokens, deletions = merge_without_duplicates(
        [parse_msa(tmp_path / "a.a3m"), parse_msa(tmp_path / "b.a3m")]
    )
    assert ["".join(LETTERS[token] for token in row) for row in tokens] == [
        "ACD",
        "ACD",
        "-CD",
    ]  # B is D as a token only.
    assert deletions.sum() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">q\nACD\n>r\nAC\n", ":3: row 2 has 2 aligned columns, expected 3"),
        (">q\nACD\n>r\nAC1\n", ":3: row 2 has '1'"),
        ("ACD\n", ":1: sequence before"),
        ("\n\n", "holds no sequence"),
        (
            ">q\nabc\n",
            ":1: the first row (the query) is in lower case, so that it has no aligned column",
        ),
        (">q\n>r\nACD\n", ":1: the first row (the query) has no letters and has no aligned column"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "mgnify_hits.a3m"
    path.write_text(text)
    with pytest.raises(BrokenFile) as caught:
        parse_msa(path)
    assert f"{path}" in str(caught.value) and message in str(caught.value)


def test_empty_file_counts_as_absent(tmp_path):
    (tmp_path / "x.a3m").write_text("")
    assert parse_msa(tmp_path / "x.a3m") is None


def test_damaged_gzip(tmp_path):
    path = tmp_path / "x.a3m.gz"
    path.write_bytes(gzip.compress(b">q\nACD\n" * 100)[:-9])
    with pytest.raises(BrokenFile, match="damaged gzip"):
        parse_msa(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# STOCKHOLM 1.0\nq ACD\nr ACD\n", ":4: cut short: expected '//' on the last line"),
        (
            "# STOCKHOLM 1.0\nq ACD\n//\n# STOCKHOLM 1.0\nq ACE\n//\n",
            ":4: continues after the '//' of line 3",
        ),
        ("# STOCKHOLM 1.0\nq ACD\nr AC-D\n//\n", ":3: row 2 has 4 columns, expected 3"),
        ("# STOCKHOLM 1.0\nq ---\nr ACD\n//\n", "has only gaps"),
        ("# STOCKHOLM 1.0\n//\n", "holds no sequence"),
    ],
)
def test_faulty_stockholm(tmp_path, text, message):
    path = tmp_path / "uniref90_hits.sto"
    path.write_text(text)
    with pytest.raises(BrokenFile) as caught:
        parse_msa(path)
    assert message in str(caught.value)
