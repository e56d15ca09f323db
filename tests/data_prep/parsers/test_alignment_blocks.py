"""Blocks of alignments as MMseqs2 and ColabFold write them."""

from __future__ import annotations

import gzip

import pytest

from data_prep.errors import BrokenFile, CannotRead
from data_prep.parsers.alignment_blocks import read_blocks, read_first_row


def write(path, contents):
    path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
    return path


@pytest.mark.parametrize("name", ["x.a3m", "x.a3m.gz"])
def test_blocks(tmp_path, name):
    path = write(tmp_path / name, b">101\nACD\n>a\nA-D\n\0>102\nKLM\n>b\nKLM\n>c\nKxL-\n\0")
    first, second = read_blocks(path)
    assert (first.first_row.query, second.first_row.query) == ("ACD", "KLM")
    assert second.first_line == 5
    msa = second.parse(max_rows=2)
    assert msa.letters.tobytes() == b"KLMKLM"
    assert second.parse(max_rows=9).deletions.tolist() == [[0] * 3, [0] * 3, [0, 1, 0]]


def test_errors_name_the_line_of_the_file(tmp_path):
    path = write(tmp_path / "x.a3m", b">101\nACD\n\0>102\nKLM\n>b\nKL\n")
    with pytest.raises(BrokenFile, match=r"x.a3m:5: row 2 has 2 aligned columns"):
        read_blocks(path)[1].parse(max_rows=9)
    path = write(tmp_path / "x.a3m", b">101\nACD\n\0KLM\n")
    with pytest.raises(BrokenFile, match="x.a3m:3: not an .a3m alignment: found 'KLM'"):
        read_blocks(path)


def test_empty_files_have_no_block(tmp_path):
    for contents in (b"", b"\n\0\n"):
        path = write(tmp_path / "x.a3m", contents)
        assert read_blocks(path) == []
    assert read_first_row(write(tmp_path / "x.a3m", b"")) is None


@pytest.mark.parametrize("name", ["x.a3m", "x.a3m.gz"])
def test_first_row_of_a_long_file(tmp_path, name):
    contents = b"#6\t1\n>101 text\nACd\nDE\n" + b">row\nACDE\n" * 20_000
    row = read_first_row(write(tmp_path / name, contents))
    assert (row.letters, row.query, row.complex_header) == ("ACdDE", "ACDE", "")
    assert read_first_row(write(tmp_path / name, b">q\n" + b"A" * 70_000)) is None
    short = read_first_row(write(tmp_path / name, b">q\n" + b"A" * 70))
    assert short.query == "A" * 70
    terminated = read_first_row(write(tmp_path / name, b">q\nACD\0"))
    assert terminated.query == "ACD"


@pytest.mark.parametrize(
    ("line", "is_complex"),
    [
        (b"#60,70\t1,1", True),
        (b"#60\t2", True),
        (b"#60\t1", False),
        (b"# a comment", False),
        (b"#A3M#", False),
    ],
)
def test_header_of_a_complex(tmp_path, line, is_complex):
    row = read_first_row(write(tmp_path / "x.a3m", line + b"\n>101\nACD\n"))
    assert row.complex_header == (line.decode() if is_complex else "")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(CannotRead, match="No such file"):
        read_first_row(tmp_path / "x.a3m.gz")
    (tmp_path / "x.a3m.gz").write_bytes(b"no gzip")
    with pytest.raises(BrokenFile, match="damaged gzip file"):
        read_first_row(tmp_path / "x.a3m.gz")
    with pytest.raises(BrokenFile, match="bytes that are not letters"):
        read_first_row(write(tmp_path / "x.a3m", b">q\nA\xff\n"))
