"""The command score: pairs of files and directories, tables, exit codes."""

import csv
import json
import shutil

import numpy as np
import pytest

from benchmark.__main__ import main
from openfold_opt.predict.comparison.structure_reader import read_structures
from tests.support.structures import EXAMPLES, only_residues, perturbed, write_pdb

TRUE = EXAMPLES / "5y2e.cif.gz"


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    """Return a directory with predictions of two chains."""
    folder = tmp_path_factory.mktemp("predictions")
    rng = np.random.default_rng(0)
    for entry, chain in (("5y2e", "A"), ("5hkn", "B")):
        chains = {found.name: found for found in read_structures(EXAMPLES / f"{entry}.cif.gz")}
        resolved = only_residues(chains[chain], chains[chain].has_ca)
        write_pdb(folder / f"{entry}_{chain}.pdb", perturbed(resolved, rng))
    return folder


def score(*arguments) -> int:
    return main(["score", *map(str, arguments)])


def test_two_directories(predictions, tmp_path, capsys):
    json_file, csv_file = tmp_path / "s.json", tmp_path / "s.csv"
    assert score(predictions, EXAMPLES, "--json", json_file, "--csv", csv_file) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["prediction", "5hkn_B", "5y2e_A", "mean"]
    assert "5hkn.cif.gz B" in lines[1] and "30/30" in lines[1]
    document = json.loads(json_file.read_text())
    assert document["failures"] == {} and set(document["chains"]) == {"5hkn_B", "5y2e_A"}
    entry = document["chains"]["5y2e_A"]
    assert (entry["truth"], entry["truth_chain"], entry["num_matched"]) == ("5y2e.cif.gz", "A", 45)
    assert len(entry["lddt_ca_per_residue"]) == len(entry["ca_distance_per_residue"]) == 45
    rows = list(csv.DictReader(csv_file.open()))
    assert [row["prediction"] for row in rows] == ["5hkn_B", "5y2e_A"]
    for name in ("lddt_ca", "lddt_all_atom", "tm_score", "gdt_ts", "rmsd_ca"):
        assert float(rows[1][name]) == pytest.approx(entry[name])
    mean = np.mean([document["chains"][key]["tm_score"] for key in document["chains"]])
    assert f"{mean:.4f}" in lines[3]


def test_every_residue(predictions, tmp_path, capsys):
    true = write_pdb(tmp_path / "true.pdb", part_of_the_truth(), first_number=700)
    csv_file = tmp_path / "s.csv"
    assert score(predictions / "5y2e_A.pdb", true, "--per-residue", "--csv", csv_file) == 0
    assert "residue  type  lDDT-Ca    lDDT  CA distance" in capsys.readouterr().out
    rows = list(csv.DictReader(csv_file.open()))
    assert len(rows) == 45 and rows[0]["residue"] == "1"
    is_empty = [row["lddt_ca"] == "" for row in rows]
    assert is_empty == [10 <= index < 15 for index in range(45)]


def part_of_the_truth():
    (chain,) = read_structures(TRUE)
    resolved = only_residues(chain, chain.has_ca)
    return only_residues(resolved, ~np.isin(np.arange(45), range(10, 15)))


def test_a_single_truth_is_found_by_sequence(predictions, tmp_path, capsys):
    shutil.copy(TRUE, tmp_path / "other_name.cif.gz")
    assert score(predictions / "5y2e_A.pdb", tmp_path / "other_name.cif.gz") == 0
    assert score(predictions, tmp_path / "other_name.cif.gz") == 1
    text = capsys.readouterr()
    assert "other_name.cif.gz A" in text.out
    assert "FAILED 5hkn_B: found no true structure of 5hkn_B" in text.err
    assert "expected at least 70%" in text.err


def test_two_chains_of_a_prediction_have_different_truths(capsys):
    assert score(EXAMPLES / "5hkn.cif.gz", EXAMPLES / "5hkn.cif.gz") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["5hkn_A", "5hkn.cif.gz", "A"]
    assert lines[2].split()[:3] == ["5hkn_B", "5hkn.cif.gz", "B"]


def test_a_damaged_file_does_not_stop_the_others(predictions, tmp_path, capsys):
    folder = tmp_path / "predictions"
    shutil.copytree(predictions, folder)
    (folder / "5hkn_B.pdb").write_text("")
    (folder / "5hkn_C.pdb").write_bytes((predictions / "5hkn_B.pdb").read_bytes())
    assert score(folder, EXAMPLES) == 1
    text = capsys.readouterr()
    assert "5y2e_A" in text.out
    assert "FAILED 5hkn_B:" in text.err and "is empty" in text.err
    assert "has no protein chain C; its protein chains are A, B" in text.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.cif", TRUE), "nothing.cif does not exist"),
        ((TRUE, "nothing"), "nothing does not exist"),
        ((TRUE, "{tmp}"), "has no structure files; expected names that end with .cif"),
        ((TRUE, TRUE, "--csv", "{tmp}/no/s.csv"), "the folder {tmp}/no does not exist"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, arguments, message):
    texts = [str(argument).format(tmp=tmp_path) for argument in arguments]
    assert score(*texts) == 2
    assert message.format(tmp=tmp_path) in capsys.readouterr().err
