"""Missing or malformed tables are refused before conversion starts; own data needs no tables."""

from __future__ import annotations

import pytest

from data_prep.__main__ import main
from openfold_opt.protein.reader import ShardReader
from tests.support import raw_data


@pytest.fixture
def raw(tmp_path):
    return raw_data.write_raw_data(tmp_path / "raw_files")


def convert(raw, out, *options) -> int:
    return main(raw_data.convert_arguments(raw, out, *options))


TABLES = (
    "pdb_mmcif/clusters-by-entity-40.txt",
    "pdb_mmcif/obsolete.dat",
    "open_protein_set/duplicate_pdb_chains.txt",
)


def test_all_missing_tables_are_named_at_once(raw, tmp_path, capsys):
    for inner in (*TABLES, "open_protein_set/pdb"):
        (raw / inner).rename(raw / inner.replace("/", "_"))
    assert convert(raw, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert all(
        f"{raw / inner} does not exist" in error for inner in (*TABLES, "open_protein_set/pdb")
    )
    assert "--own-data" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("inner", "text", "message"),
    [
        (TABLES[0], "<!DOCTYPE html>\n<p>Not found</p>", "is a web page"),
        (TABLES[0], "1ABC_1;2ABC_1\n", "has commas or semicolons"),
        (TABLES[0], "1ABC_1, 2ABC_1\n", "has commas or semicolons"),
        (TABLES[0], "1abc_A 2abc_A 9xyz_B\n", "lists 1ABC_A, 2ABC_A, 9XYZ_B; expected entities"),
        (TABLES[0], "1ABC 2ABC\n", "expected entities such as 1ABC_1"),
        (TABLES[0], "9XYZ_1 9ABC_1\n", "knows none of the 2 entries (1ABC, 2ABC)"),
        (TABLES[0], "1ABC_1 2ABC_1\n2abc_1\n", "2ABC_1 is in two clusters"),
        (TABLES[0], "", "is empty"),
        (TABLES[1], "<html>404</html>", "is a web page"),
        (TABLES[1], "<html>LIST OF OBSOLETE ENTRIES</html>", "is a web page"),
        (TABLES[1], "404: not found\n", "expected lines that begin with OBSLTE"),
        (TABLES[2], "<html>404</html>", "is a web page"),
        (TABLES[2], "1abc_A,2abc_A\n", "has commas or semicolons"),
        (TABLES[2], "1abc 2abc\n", "expected chains such as 1abc_A"),
        (TABLES[2], "1abc_A 2abc_A\n1abc_A\n", "is in two groups"),
    ],
)
def test_malformed_table_is_refused_before_conversion_starts(
    raw, tmp_path, capsys, inner, text, message
):
    (raw / inner).write_text(text)
    assert convert(raw, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert f"{raw / inner}:" in error and message in error
    assert not (tmp_path / "out").exists()


def test_cluster_table_with_few_entries_is_reported(raw, tmp_path, capsys):
    for number in range(3):
        pdb_id = f"{number}xyz"
        raw_data.write_entry(raw, pdb_id, raw_data.cif_text(pdb_id, raw_data.SEQUENCE_1ABC))
    (raw / TABLES[0]).write_text("1ABC_1\n2ABC_1\n")
    assert convert(raw, tmp_path / "out", "--missing-alignments", "query") == 0
    captured = capsys.readouterr()
    assert "only 2 of 5 entries are in a cluster" in captured.err
    assert "3 chains are in no cluster" in captured.out


@pytest.mark.parametrize(
    "text",
    [
        "1abc_1\t2ABC_1\r\n",
        "\ufeff1ABC_1 2ABC_1\n",
        "1ABC_1 AF_AFP12345F1_1 2ABC_1 PDB_00009XYZ_1\n",
    ],
)
def test_published_tables_are_accepted(raw, tmp_path, text):
    (raw / TABLES[0]).write_text(text)
    assert convert(raw, tmp_path / "out", "--strict") == 0
    assert [chain.cluster_id for chain in ShardReader(tmp_path / "out").index.chains] == [0, 0]


def test_own_data_needs_no_tables_and_makes_each_entity_a_cluster(raw, tmp_path):
    for inner in TABLES:
        (raw / inner).unlink()
    text = raw_data.cif_text("1abc", raw_data.SEQUENCE_1ABC)
    atoms = [line for line in text.splitlines() if line.startswith("ATOM")]
    second = "".join(line.replace(" A ", " B ") + "\n" for line in atoms)
    raw_data.write_entry(raw, "1abc", text.replace("\nA 1\nloop_", "\nA 1\nB 1\nloop_") + second)
    raw_data.write_alignment(raw, "1abc_B", "uniref90_hits.a3m", f">q\n{raw_data.SEQUENCE_1ABC}\n")
    assert convert(raw, tmp_path / "out", "--own-data", "--strict") == 0
    reader = ShardReader(tmp_path / "out")
    assert [(chain.chain_id, chain.cluster_id) for chain in reader.index.chains] == [
        ("1abc_A", 0),
        ("1abc_B", 0),
        ("2abc_A", 1),
    ]
    assert [hit.name for hit in reader.template_hits("1abc_A")] == ["2abc_A"]
