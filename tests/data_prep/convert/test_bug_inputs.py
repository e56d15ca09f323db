"""Inputs for which an earlier version gave a wrong result, mostly without an error.

They are in the folder bug_inputs of the shared data.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import pytest

from data_prep.__main__ import main
from data_prep.convert.listings import read_listing
from data_prep.errors import BrokenFile, EntryRejected
from data_prep.parsers.mmcif import parse_mmcif
from data_prep.parsers.msa import parse_msa
from openfold_opt.protein.reader import ShardReader
from tests.support import raw_data


@pytest.fixture
def case(shared, tmp_path):
    """Return a function that copies the raw files of a case and returns their folder."""

    def copy(name: str) -> Path:
        root = tmp_path / name
        shutil.copytree(shared / "bug_inputs" / name / "raw", root)
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o700)
        return root

    return copy


def convert(root: Path, *options) -> int:
    return main(raw_data.convert_arguments(root, root / "out", *options))


def rejected(root: Path) -> dict[str, str]:
    return {row["entry"]: row["reason"] for row in read_listing(root / "out" / "rejected.csv")}


def rows_and_hits(root: Path) -> dict[str, tuple[int, list[str]]]:
    reader = ShardReader(root / "out")
    return {
        chain.chain_id: (
            reader.alignment(chain.chain_id).num_sequences,
            [hit.name for hit in reader.template_hits(chain.chain_id)],
        )
        for chain in reader.index.chains
    }


RIGHT = {"1abc_A": (2, ["2abc_A"]), "2abc_A": (1, [])}


@pytest.mark.parametrize("name", ["empty_query", "lower_query"])
def test_a3m_faulty_first_row(shared, name):
    with pytest.raises(
        BrokenFile, match=rf"{name}.a3m:1: the first row \(the query\) .* has no aligned column"
    ):
        parse_msa(shared / "bug_inputs" / "a3m_faulty_first_row" / f"{name}.a3m")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "is a web page"),
        ("1ABC_1,2ABC_1\n", "has commas"),
        ("1abc_A 2abc_A\n", "expected entities such as 1ABC_1"),
        ("9XYZ_1 8XYZ_1\n", "knows none of the 2 entries"),
    ],
)
def test_malformed_cluster_table(case, capsys, table, message):
    root = case("clusters_is_an_html_page")
    path = root / "pdb_mmcif" / "clusters-by-entity-40.txt"
    if table is not None:
        path.write_text(table)
    assert convert(root) == 1
    assert f"{path}: " in (error := capsys.readouterr().err) and message in error
    assert not (root / "out").exists()


def test_dangling_a3m_symlink(case, capsys):
    root = case("dangling_a3m_symlink")
    link = root / "open_protein_set/pdb/1abc_A/a3m/uniref90_hits.a3m"
    link.symlink_to("nowhere")
    assert convert(root) == 1
    assert f"cannot read {link}" in capsys.readouterr().err


def test_entry_name_not_utf8(case, capsys):
    root = case("entry_name_not_utf8")
    folder = os.fsencode(root / "pdb_mmcif/raw/ab")
    os.rename(os.path.join(folder, b"rename_me.cif.gz"), os.path.join(folder, b"caf\xe9.cif.gz"))
    assert convert(root) == 3
    assert rejected(root) == {
        "caf\\xe9": "the name of the file caf\\xe9.cif.gz is not UTF-8; rename it"
    }
    assert rows_and_hits(root) == RIGHT


def test_extended_pdb_ids(case, capsys):
    root = case("extended_pdb_ids")
    assert convert(root) == 1
    assert "all 2 entries were rejected" in capsys.readouterr().err
    expected = {
        name: f"id '{name}' has 12 characters, expected 4"
        for name in ("pdb_00001abc", "pdb_00002abc")
    }
    assert rejected(root) == expected


def test_flat_alignment_layout(case):
    root = case("flat_alignment_layout")
    assert convert(root, "--strict") == 0
    assert rows_and_hits(root) == RIGHT


def test_hhr_hit_without_alignment(case):
    root = case("hhr_hit_without_alignment")
    assert convert(root, "--strict") == 0
    assert rows_and_hits(root) == RIGHT


def test_mmcif_anisotrop_unknown(shared, tmp_path):
    path = shared / "bug_inputs" / "mmcif_anisotrop_unknown" / "1abc.cif.gz"
    with pytest.raises(
        EntryRejected,
        match=r"_atom_site_anisotrop.U\[1\]\[1\]: could not convert string to float: '\?'",
    ):
        parse_mmcif(path)
    text = gzip.decompress(path.read_bytes()).decode()
    (tmp_path / "1abc.cif").write_text(text.replace("\n1 ? 0 0 0 0 0", "\n1 0.1 0 0 0 0 0"))
    assert len(parse_mmcif(tmp_path / "1abc.cif").chains) == 1


def test_query_letter_of_pca(case, capsys):
    root = case("query_letter_of_PCA")
    assert convert(root, "--strict") == 0
    assert read_listing(root / "out" / "query_differences.csv") == [
        {"chain": "1abc_A", "positions": "1", "letters": "E>Q", "file": "uniref90_hits.a3m"}
    ]
    assert "query differs from the chain in some letters: 1 chains" in capsys.readouterr().out
    reader = ShardReader(root / "out")
    assert reader.sequence("1abc_A")[0] == "E"
    assert reader.alignment("1abc_A").msa[0, 0] == "ACDEFGHIKLMNPQRSTVWY".index("Q")


def test_the_summary_shows_a_rejected_date_whole(case, capsys):
    root = case("revision_date_unpadded")
    entry = root / "pdb_mmcif/raw/ab/1abc.cif.gz"
    text = gzip.decompress(entry.read_bytes()).decode()
    entry.write_bytes(gzip.compress(text.replace(" 2001-2-3", " 2001-02-03T10:30:00").encode()))
    assert convert(root) == 0
    assert "1 x revision date '2001-02-03T10:30:00' is not a date\n" in capsys.readouterr().out


def test_revision_date_unpadded(case, capsys):
    root = case("revision_date_unpadded")
    assert convert(root) == 0
    assert ShardReader(root / "out").entry("1abc_A").release_date == "2001-02-03"
    assert main(["inspect", str(root / "out"), "1abc_A"]) == 0
    assert "released            2001-02-03" in capsys.readouterr().out
