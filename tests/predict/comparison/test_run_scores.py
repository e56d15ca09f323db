"""The option --truth: scores.json and pictures at the end of a run."""

import json

import pytest

from openfold_opt.predict.comparison.structure_reader import read_structures
from tests.support.structures import write_pdb

FIRST, SECOND = "MKLVAEWTRDPQNHICYGSFMKLVAEWT", "GSFYCIHNQPDRTWEAVLKMGSFYCIHN"


def scores_of(tmp_path) -> dict:
    return json.loads((tmp_path / "out/scores.json").read_text())


@pytest.fixture
def truths(run, tmp_path):
    """Predict two chains, and return a directory with the first one as its own truth."""
    assert run({"first": FIRST, "second": SECOND})[0] == 0
    folder = tmp_path / "truths"
    folder.mkdir()
    (chain,) = read_structures(tmp_path / "out/first.cif")
    write_pdb(folder / "first.pdb", chain, first_number=100)
    return folder


def test_a_finished_run_is_compared(run, tmp_path, truths):
    assert not (tmp_path / "out/scores.json").exists()
    code, text, _ = run({"first": FIRST, "second": SECOND}, "--truth", truths, "--pictures")
    assert code == 0
    assert "first: lDDT-Ca 1.0000, TM-score 1.0000, GDT-TS 1.0000 of 28 of 28 residues" in text
    assert "mean of 1 of 2 chains with a truth: lDDT-Ca 1.0000" in text
    document = scores_of(tmp_path)
    assert document["schema_version"] == 1 and document["failures"] == {}
    (entry,) = document["chains"].values()
    assert (entry["truth"], entry["truth_chain"]) == ("first.pdb", "A")
    assert entry["picture"] == "first_superposed.png"
    picture = (tmp_path / "out/first_superposed.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_chains_that_are_predicted_again_lose_their_scores(run, tmp_path, truths):
    sequences = {"first": FIRST, "second": SECOND}
    run(sequences, "--truth", truths, "--pictures")
    (tmp_path / "out/second.cif").unlink()
    run(sequences)
    assert set(scores_of(tmp_path)["chains"]) == {"first"}
    (tmp_path / "out/first.cif").unlink()
    run(sequences)
    assert scores_of(tmp_path)["chains"] == {}
    assert not (tmp_path / "out/first_superposed.png").exists()


def test_a_truth_that_cannot_be_used_is_reported(run, tmp_path, truths):
    (truths / "second.cif").write_text("data_x\n")
    code, text, _ = run({"first": FIRST, "second": SECOND}, "--truth", truths, "--no-pictures")
    assert code == 0 and "second: not compared with its truth: " in text
    document = scores_of(tmp_path)
    assert "is not a complete mmCIF" in document["failures"]["second"]
    assert "picture" not in document["chains"]["first"]


def test_a_file_belongs_to_the_chain_with_its_sequence(run, tmp_path, truths):
    (truths / "first.pdb").rename(truths / "x.pdb")
    _, text, _ = run({"first": FIRST, "second": SECOND}, "--truth", truths / "x.pdb")
    assert list(scores_of(tmp_path)["chains"]) == ["first"]
    _, text, _ = run({"first": FIRST, "second": SECOND}, "--truth", truths, "--pictures")
    assert "none of 2 chains has a true structure that can be compared" in text


def test_wrong_paths_are_refused_before_the_first_chain(run, tmp_path):
    code, _, errors = run({"first": FIRST}, "--truth", tmp_path / "nothing")
    assert code == 2 and "--truth" in errors and "nothing does not exist" in errors
    (tmp_path / "empty").mkdir()
    code, _, errors = run({"first": FIRST}, "--truth", tmp_path / "empty")
    assert code == 2 and "has no structure files" in errors
    assert not (tmp_path / "out/first.cif").exists()
