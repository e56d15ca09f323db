"""The .hhr parser on real files and on truncated files."""

from __future__ import annotations

import dataclasses
import re

import pytest

from data_prep.errors import BrokenFile
from data_prep.parsers.hhr import parse_hhr
from tests.support import raw_data


@pytest.fixture
def real_hhr(shared):
    return shared / "data/other_alignments/6kwc_A/pdb70_hits.hhr"


def test_real_files(shared):
    num_hits = 0
    for path in sorted((shared / "data").rglob("*.hhr")):
        if "trunc" in path.name:
            continue
        for hit in parse_hhr(path):
            assert (
                len(hit.query)
                == len(hit.hit_sequence)
                == len(hit.indices_query)
                == len(hit.indices_hit)
            )
            assert [i < 0 for i in hit.indices_hit] == [
                letter == "-" for letter in hit.hit_sequence
            ]
            num_hits += 1
    assert num_hits > 1000


def test_truncated_real_file(shared):
    with pytest.raises(BrokenFile, match="table lists 57 hits, but 1 follow"):
        parse_hhr(shared / "data/other_alignments/7rbx_A/7rbx_A_hhsearch_trunc.hhr")


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.77, 0.9, 0.985])
def test_file_truncated_at_any_position(real_hhr, tmp_path, fraction):
    text = real_hhr.read_text()
    (tmp_path / "pdb70_hits.hhr").write_text(text[: int(len(text) * fraction)])
    with pytest.raises(BrokenFile, match="pdb70_hits.hhr:[0-9]+: "):
        parse_hhr(tmp_path / "pdb70_hits.hhr")


def test_last_hit_truncated_within_its_blocks(real_hhr, tmp_path):
    lines = real_hhr.read_text().splitlines()
    last_stretch = max(
        i
        for i, line in enumerate(lines)
        if line.startswith("T ") and "Consensus" not in line and "ss_" not in line
    )
    (tmp_path / "x.hhr").write_text("\n".join(lines[:last_stretch]))
    with pytest.raises(BrokenFile, match="aligned columns, its summary says"):
        parse_hhr(tmp_path / "x.hhr")


def test_no_hits(tmp_path):
    (tmp_path / "x.hhr").write_text("Query x\n\n No Hit   Prob\n\n")
    assert parse_hhr(tmp_path / "x.hhr") == []
    (tmp_path / "x.hhr").write_text("")
    assert parse_hhr(tmp_path / "x.hhr") == []


def test_chain_of_a_hit(real_hhr):
    pdb_id, chain = parse_hhr(real_hhr)[0].chain
    assert pdb_id == pdb_id.lower() and len(pdb_id) == 4 and chain


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1ABC_A description_of it", ("1abc", "A")),
        ("1Abc_aB", ("1abc", "aB")),
        ("9XYZ_A.2 text", ("9xyz", "A.2")),
        ("1ABC_A; text", ("1abc", "A")),
    ],
)
def test_names_of_hits(real_hhr, name, expected):
    hit = dataclasses.replace(parse_hhr(real_hhr)[0], name=name)
    assert hit.chain == expected


@pytest.mark.parametrize(
    "name", ["", "1ABC", "1ABC_", "1ABC_ A", "1AB_A", "1ABCD_A", "1A-C_A", "1ABC x_A"]
)
def test_names_without_a_chain_are_an_error(real_hhr, name):
    hit = dataclasses.replace(parse_hhr(real_hhr)[0], name=name)
    with pytest.raises(ValueError, match="expected <PDB id>_<chain> at the beginning"):
        _ = hit.chain


@pytest.mark.parametrize("text", ["\x00\x01", "Query         9000_A\nMatch_columns 20\n"])
def test_incomplete_header_is_an_error(tmp_path, text):
    path = tmp_path / "pdb70_hits.hhr"
    path.write_text(text)
    with pytest.raises(BrokenFile, match="expected a header that ends with 'Command'"):
        parse_hhr(path)


def test_empty_file_has_no_hits(tmp_path):
    path = tmp_path / "pdb70_hits.hhr"
    path.write_text("")
    assert parse_hhr(path) == []


@pytest.mark.parametrize("text", ["nan", "-nan", "inf"])
def test_sum_probs_by_which_hits_cannot_be_sorted_are_broken(tmp_path, text):
    path = tmp_path / "pdb70_hits.hhr"
    hhr = raw_data.hhr_text("MKTAYIAKQR", [("2abc_A", "MKTAYIAKQR", "MKTAYIAKQR", 9.0)])
    path.write_text(re.sub(r"Sum_probs=\S+", f"Sum_probs={text}", hhr))
    with pytest.raises(BrokenFile, match=rf":\d+: Sum_probs is {text}, expected a finite number"):
        parse_hhr(path)


def hits_with_summaries(
    tmp_path, summary_columns: list[int], lines_shown: list[bool], end: str = ""
):
    """Write hits with ten aligned columns whose summaries have other numbers."""
    query = "MKTAYIAKQR"
    text = raw_data.hhr_text(
        query, [(f"{number}ABC_A", query, query, 9.0) for number in range(len(summary_columns))]
    )
    head, *blocks = text.split("\nNo ")
    for number, (num_columns, is_shown) in enumerate(
        zip(summary_columns, lines_shown, strict=True)
    ):
        block = blocks[number].replace("Aligned_cols=10", f"Aligned_cols={num_columns}")
        blocks[number] = (
            block
            if is_shown
            else "\n".join(line for line in block.split("\n") if line[:2] not in ("Q ", "T "))
        )
    path = tmp_path / "pdb70_hits.hhr"
    path.write_text("\nNo ".join([head, *blocks]) + end)
    return path


@pytest.mark.parametrize(
    ("summary_columns", "lines_shown", "end"),
    [
        ([10, 1, 10], [True, False, True], ""),
        ([12, 10], [True, True], ""),
        ([10, 1], [True, False], ""),
        ([10, 12], [True, True], "\nDone!\n"),
    ],
)
def test_hits_with_fewer_columns_than_their_summaries_are_read(
    tmp_path, summary_columns, lines_shown, end
):
    hits = parse_hhr(hits_with_summaries(tmp_path, summary_columns, lines_shown, end))
    assert [hit.aligned_cols for hit in hits] == summary_columns
    assert [len(hit.query) for hit in hits] == [10 * is_shown for is_shown in lines_shown]


@pytest.mark.parametrize(
    ("summary_columns", "lines_shown"),
    [([10, 12], [True, True]), ([10, 10], [True, False]), ([10, 9], [True, True])],
)
def test_last_hit_with_fewer_columns_is_truncated(tmp_path, summary_columns, lines_shown):
    with pytest.raises(BrokenFile, match="cut short"):
        parse_hhr(hits_with_summaries(tmp_path, summary_columns, lines_shown))


def test_impossible_number_of_columns_is_an_error(tmp_path):
    with pytest.raises(BrokenFile, match="pdb70_hits.hhr: "):
        parse_hhr(hits_with_summaries(tmp_path, [int("9" * 400), 10], [True, True]))
