"""Listing of unused input, supported layouts and names, links and unreadable folders."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from data_prep.__main__ import main
from data_prep.convert.listings import read_listing
from openfold_opt.protein.reader import ShardReader
from tests.support import raw_data

QUERY = raw_data.SEQUENCE_1ABC


@pytest.fixture
def raw(tmp_path) -> Path:
    return raw_data.write_raw_data(tmp_path / "raw_files")


def convert(raw, out, *options) -> int:
    return main(raw_data.convert_arguments(raw, out, *options))


def unused(out) -> dict[str, tuple[str, str]]:
    return {row["path"]: (row["reason"], row["bytes"]) for row in read_listing(out / "unused.csv")}


def num_rows(out, chain_id="1abc_A") -> int:
    return ShardReader(out).alignment(chain_id).num_sequences


def folder_of(raw) -> Path:
    return raw / "open_protein_set" / "pdb" / "1abc_A"


def test_nothing_is_listed_if_all_input_is_used(raw, tmp_path, capsys):
    assert convert(raw, tmp_path / "out", "--strict") == 0
    assert (tmp_path / "out" / "unused.csv").read_text() == "path,reason,bytes\n"
    assert (
        tmp_path / "out" / "query_differences.csv"
    ).read_text() == "chain,positions,letters,file\n"
    assert "not used" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("pdb_mmcif/raw/README", "not an entry"),
        ("pdb_mmcif/raw/ab/1abc.pdb.gz", "not an entry"),
        ("pdb_mmcif/raw/ab/sub/3abc.cif.gz", "too deep"),
        ("pdb_mmcif/raw/ab/1abc.cif", "the entry's .cif.gz is read; 1abc.cif.gz"),
        ("pdb_mmcif/raw/1abc.cif.gz", "the entry is read from a folder; "),
        ("open_protein_set/pdb/1abc_A.a3m", "not in a folder"),
        (
            "open_protein_set/pdb/1abc_A/a3m/bfd_uniref_hits.a3m",
            "the folder has files of the benchmark's names",
        ),
        (
            "open_protein_set/pdb/1abc_A/hhr/hhsearch_output.hhr",
            "the folder has files of the benchmark's names",
        ),
        ("open_protein_set/pdb/1abc_A/uniref90_hits.a3m", "a file of this name is read from a3m/"),
        (
            "open_protein_set/pdb/1abc_A/a3m/uniref90_hits.sto",
            "the same alignment is read in another format",
        ),
        ("open_protein_set/pdb/1abc_A/a3m/notes.txt", "not an alignment"),
        ("open_protein_set/pdb/1abc_A/a3m/old/mgnify_hits.a3m", "too deep"),
        ("open_protein_set/pdb/1abc_A/pdb_hits.sto", "a template search of hmmsearch"),
    ],
)
def test_unused_file_is_listed(raw, tmp_path, inner, reason, capsys):
    (raw / inner).parent.mkdir(exist_ok=True)
    (raw / inner).write_text("1234567")
    out = tmp_path / "out"
    assert convert(raw, out) == 0
    assert list(unused(out)) == [str(raw / inner)]
    assert (
        unused(out)[str(raw / inner)][0].startswith(reason)
        and unused(out)[str(raw / inner)][1] == "7"
    )
    assert "input that was not used: 1 files or folders" in capsys.readouterr().out
    assert convert(raw, out, "--strict") == 3
    assert main(["inspect", str(out)]) == 0
    assert "not used            1 files or folders" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("ab/1abc.cif.gz", "xy/1ABC.cif"), ("1abc.cif.gz", "1ABC.cif")])
def test_entry_in_two_folders_is_an_error(raw, tmp_path, names, capsys):
    entries = raw / "pdb_mmcif" / "raw"
    contents = (entries / "ab" / "1abc.cif.gz").read_bytes()
    (entries / "ab" / "1abc.cif.gz").unlink()
    for name, data in zip(names, (contents, gzip.decompress(contents)), strict=True):
        (entries / name).parent.mkdir(exist_ok=True)
        (entries / name).write_bytes(data)
    assert convert(raw, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "is in two places" in error and all(str(entries / name) in error for name in names)


def test_the_report_groups_files_by_reason(raw, tmp_path, capsys):
    for path in list((raw / "pdb_mmcif" / "raw" / "ab").iterdir()):
        path.with_suffix("").write_text("data_")
    assert convert(raw, tmp_path / "out") == 0
    assert "  2 x the entry's .cif.gz is read\n" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["uniref90_hits.sto", "bfd_uniref_hits.sto"])
def test_an_empty_file_does_not_replace_another(raw, tmp_path, other):
    empty = folder_of(raw) / "a3m" / "uniref90_hits.a3m"
    empty.write_text("")
    rows = f"q {QUERY}\ns {QUERY.replace('Q', 'E')}\n"
    empty.with_name(other).write_text(f"# STOCKHOLM 1.0\n{rows}//\n")
    out = tmp_path / "out"
    assert convert(raw, out) == 0
    assert unused(out) == {str(empty): ("is empty", "0")} and num_rows(out) == 2


def test_unused_folders_and_names_in_another_case(raw, tmp_path, capsys):
    shutil.copytree(folder_of(raw), folder_of(raw).with_name("9xyz_A"))
    folder_of(raw).rename(folder_of(raw).with_name("1ABC_A"))
    out = tmp_path / "out"
    assert convert(raw, out) == 1
    error = capsys.readouterr().err
    assert (
        f"{folder_of(raw).with_name('1ABC_A')} differs from 1abc_A in upper and lower case" in error
    )
    assert convert(raw, out, "--missing-alignments", "query") == 0
    root = folder_of(raw).parent
    assert unused(out) == {
        str(root / "1ABC_A"): (
            "no chain has this name; chain 1abc_A differs in upper and lower case",
            "",
        ),
        str(root / "9xyz_A"): ("no chain of the data set uses this folder", ""),
    }
    assert (
        "2 chains have their own sequence as their only row, 1 of them for lack"
        in capsys.readouterr().out
    )


def test_openfolds_flat_layout_gives_the_same_bytes(raw, tmp_path):
    assert convert(raw, tmp_path / "nested") == 0
    for folder in folder_of(raw).parent.iterdir():
        for path in list(folder.glob("*/*")):
            path.rename(folder / path.name)
            path.parent.rmdir()
    assert convert(raw, tmp_path / "flat", "--strict") == 0
    root = folder_of(raw).parent
    for folder in list(root.iterdir()):
        folder.rename(root.parent / folder.name)
    root.rmdir()
    assert convert(raw, tmp_path / "without_pdb", "--strict") == 0
    for name in ("index.h5", "structures-00000.h5", "alignments-00000.h5"):
        expected = (tmp_path / "nested" / name).read_bytes()
        assert expected == (tmp_path / "flat" / name).read_bytes()
        assert expected == (tmp_path / "without_pdb" / name).read_bytes()


def test_uncompressed_entries_directly_in_raw(raw, tmp_path):
    assert convert(raw, tmp_path / "expected") == 0
    path = raw / "pdb_mmcif/raw/ab/1abc.cif.gz"
    (raw / "pdb_mmcif/raw/1abc.cif").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert convert(raw, tmp_path / "out", "--strict") == 0
    expected, actual = (
        ShardReader(tmp_path / "expected").structure("1abc_A"),
        ShardReader(tmp_path / "out").structure("1abc_A"),
    )
    np.testing.assert_array_equal(actual.all_atom_positions, expected.all_atom_positions)


def other_alignments(raw) -> None:
    """Write files with other names: two with rows and one with hits."""
    folder = folder_of(raw)
    (folder / "b_own.a3m").write_text(f">q\n{QUERY}\n>b\n{'W' + QUERY[1:]}\n")
    (folder / "a_own.sto").write_text(f"# STOCKHOLM 1.0\nq {QUERY}\na {'Y' + QUERY[1:]}\n//\n")
    (folder / "own.hhr").write_text((folder / "hhr/pdb70_hits.hhr").read_text())


def first_letters(out) -> str:
    msa = ShardReader(out).alignment("1abc_A").msa
    return "".join("ACDEFGHIKLMNPQRSTVWYX-"[row[0]] for row in np.asarray(msa))


def test_other_names_are_read_without_benchmark_names(raw, tmp_path):
    other_alignments(raw)
    shutil.rmtree(folder_of(raw) / "a3m")
    shutil.rmtree(folder_of(raw) / "hhr")
    assert convert(raw, tmp_path / "out", "--strict") == 0
    assert first_letters(tmp_path / "out") == "MYW"
    assert [hit.name for hit in ShardReader(tmp_path / "out").template_hits("1abc_A")] == ["2abc_A"]


def test_other_names_follow_the_benchmark_names_with_own_data(raw, tmp_path):
    other_alignments(raw)
    assert convert(raw, tmp_path / "without") == 0
    assert first_letters(tmp_path / "without") == "MM" and len(unused(tmp_path / "without")) == 3
    assert convert(raw, tmp_path / "own", "--own-data", "--strict") == 0
    assert first_letters(tmp_path / "own") == "MMYW"
    assert [hit.name for hit in ShardReader(tmp_path / "own").template_hits("1abc_A")] == [
        "2abc_A",
        "2abc_A",
    ]


@pytest.mark.parametrize(
    "inner",
    [
        "pdb_mmcif/raw/ab/3abc.cif.gz",
        "open_protein_set/pdb/1abc_A/a3m/mgnify_hits.a3m",
        "open_protein_set/pdb/2abc_A",
    ],
)
def test_required_dangling_link_is_an_error(raw, tmp_path, inner, capsys):
    path = raw / inner
    if path.exists():
        shutil.rmtree(path)
    path.symlink_to("nowhere")
    assert convert(raw, tmp_path / "out") == 1
    assert f"cannot read {path}: a link to a path that does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.h5").exists()


@pytest.mark.parametrize(
    "inner",
    [
        "pdb_mmcif/raw/ab/notes",
        "open_protein_set/pdb/9xyz_A",
        "open_protein_set/pdb/1abc_A/own.a3m",
    ],
)
def test_unused_dangling_link_is_listed(raw, tmp_path, inner):
    (raw / inner).symlink_to("nowhere")
    assert convert(raw, tmp_path / "out") == 0
    (reason, size) = unused(tmp_path / "out")[str(raw / inner)]
    assert reason.endswith("(a link to a path that does not exist)") and size == ""


def test_links_are_followed(raw, tmp_path):
    folder_of(raw).rename(tmp_path / "elsewhere")
    folder_of(raw).symlink_to(tmp_path / "elsewhere")
    assert convert(raw, tmp_path / "out", "--strict") == 0
    assert num_rows(tmp_path / "out") == 2


@pytest.mark.parametrize(
    "inner",
    [
        "pdb_mmcif/raw/ab",
        "pdb_mmcif/raw/ab/1abc.cif.gz",
        "pdb_mmcif/obsolete.dat",
        "open_protein_set/pdb",
        "open_protein_set/pdb/1abc_A",
        "open_protein_set/pdb/1abc_A/a3m",
        "open_protein_set/pdb/1abc_A/hhr/pdb70_hits.hhr",
    ],
)
def test_unreadable_input_is_an_error(inner, capsys):
    """Root, which may read all files, changes to another user during the conversion."""
    with tempfile.TemporaryDirectory() as top:
        raw = raw_data.write_raw_data(Path(top) / "raw")
        os.chmod(top, 0o777)
        os.chmod(raw / inner, 0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            code = convert(raw, Path(top) / "out")
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod(raw / inner, 0o755)
        assert code == 1
        assert (
            f"cannot read {raw / inner}" in (error := capsys.readouterr().err)
            and "Permission denied" in error
        )
        assert not (Path(top) / "out" / "index.h5").exists()
