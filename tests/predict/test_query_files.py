"""Files that name the chains: FASTA, .a3m and directories, and what is wrong with them."""

from __future__ import annotations

import gzip

import pytest

from openfold_opt.predict.chain_input import InputError
from openfold_opt.predict.query_files import read_records

A, B = "ACDEFGHIKLMNPQRSTVWY", "MKTAYIAKQRQISFVKSHFS"


def names(paths):
    records, failures = read_records(paths)
    return [record.name for record in records], [failure.name for failure in failures]


def test_files_are_read_in_their_order(tmp_path):
    (tmp_path / "b.fa").write_text(f">b\n{A}\n>c\n{B}\n")
    (tmp_path / "a.fasta.gz").write_bytes(gzip.compress(f">a\n{A}\n".encode()))
    (tmp_path / "d.a3m").write_text(f"#20\t1\n>101\n{A}\n>hit\n{B}\n")
    (tmp_path / "notes.txt").write_text("not read")
    records, failures = read_records([tmp_path])
    assert failures == []
    assert [(r.name, r.letters) for r in records] == [("a", A), ("b", A), ("c", B), ("d", A)]
    assert records[2].origin == f"{tmp_path}/b.fa, record 2 (line 3)"
    assert [r.msa_path for r in records] == [None, None, None, tmp_path / "d.a3m"]
    # A file that is named itself may have any suffix.
    (tmp_path / "x").write_text(f">x\n{A}\n")
    assert names([tmp_path / "x", tmp_path / "b.fa"]) == (["x", "b", "c"], [])


def test_only_the_first_row_of_an_a3m_file_is_read(tmp_path):
    path = tmp_path / "q.a3m"
    path.write_bytes(f">1\n{A[:10]}\n{A[10:]}\0\n>row\n".encode() + b"\xff" * 200_000)
    records, failures = read_records([path])
    assert [record.letters for record in records] == [A] and failures == []


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "has no sequence"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ("is not a text file", "before the first header")),
        (b"ACDEF\n", "before the first header"),
    ],
)
@pytest.mark.parametrize("name", ["x.fasta", "x.a3m"])
def test_a_bad_file_does_not_stop_the_others(tmp_path, name, contents, message):
    (tmp_path / name).write_bytes(contents)
    (tmp_path / "y.fasta").write_text(f">y\n{A}\n")
    records, (failure,) = read_records([tmp_path])
    assert [record.name for record in records] == ["y"]
    assert failure.name == str(tmp_path / name) and failure.message.count(str(tmp_path / name)) == 1
    messages = (message,) if isinstance(message, str) else message
    assert any(text in failure.message for text in messages)


def test_damaged_gzip_file(tmp_path):
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(f">x\n{A}\n".encode())[:-12])
    (tmp_path / "y.fa.gz").write_bytes(b"no gzip")
    _, failures = read_records([tmp_path])
    assert [failure.name[-7:] for failure in failures] == ["x.fa.gz", "y.fa.gz"]
    assert all("cannot read" in failure.message for failure in failures)


def test_insertions_in_the_query_of_an_a3m_file(tmp_path):
    (tmp_path / "x.a3m").write_text(">x\nACDefGHI\n>row\nACDGHI\n")
    _, (failure,) = read_records([tmp_path / "x.a3m"])
    assert "has 'e' in lower case, which is an insertion" in failure.message


def test_names_must_exist_and_be_unique(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_text(f">a\n{A}\n>\n{B}\n>a other\n{B}\n>sp|P1/2|C\n{A}\n")
    (tmp_path / "a.a3m").write_text(f">101\n{A}\n")
    records, failures = read_records([path, tmp_path / "a.a3m"])
    assert [record.name for record in records] == ["a", "sp|P1/2|C"]
    assert [failure.name for failure in failures] == [f"{path}, record 2 (line 3)", "a", "a"]
    assert "has no name; write one after '>'" in failures[0].message
    assert f"record 3 (line 5) has the name of {path}, record 1 (line 1)" in failures[1].message


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="nothing.fasta does not exist; expected a FASTA file"):
        read_records([tmp_path / "nothing.fasta"])
    with pytest.raises(InputError, match="has no file to read; expected names that end in .fasta"):
        read_records([tmp_path])
    (tmp_path / "x.sto").write_text("# STOCKHOLM 1.0\n//\n")
    with pytest.raises(InputError, match="is no file of sequences; give the sequence as FASTA"):
        read_records([tmp_path / "x.sto"])
