"""The parity command on a directory of weights in published forms."""

import shutil

import numpy as np
import pytest
import torch

from benchmark.__main__ import main


@pytest.fixture(autouse=True)
def threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def weights(shared, tmp_path):
    """Return a writable copy with one model, next to the sizes and the batch."""
    source, target = shared / "golden", tmp_path / "weights"
    (tmp_path / "model_tiny").mkdir()
    target.mkdir()
    for name in ("model_tiny/config.json", "model_tiny/batch.npz"):
        shutil.copyfile(source / name, tmp_path / name)
    for end in ("_keys.tsv", "_tiny.npz", "_tiny_openfold.pt", "_tiny_outputs.npz"):
        shutil.copyfile(source / "weights" / f"model_3{end}", target / f"model_3{end}")
    return target


def test_every_file_passes(shared, capsys):
    assert main(["parity", str(shared / "golden" / "weights")]) == 0
    text = capsys.readouterr().out
    for name in ("model_1", "model_3", "model_1_ptm"):
        for end in ("_tiny.npz", "_tiny_openfold.pt", "_keys.tsv"):
            assert f"PASS {name}{end}: " in text
    assert "PASS (57 comparisons" in text and "FAIL" not in text


def test_a_wrong_file_fails_and_the_others_pass(weights, capsys):
    arrays = dict(np.load(weights / "model_3_tiny.npz"))
    key = "alphafold/alphafold_iteration/evoformer/single_activations//bias"
    arrays[key] = arrays[key] + np.float32(0.01)
    np.savez(weights / "model_3_tiny.npz", **arrays)
    assert main(["parity", str(weights)]) == 1
    text = capsys.readouterr().out
    assert "FAIL model_3_tiny.npz: largest error" in text
    assert "PASS model_3_tiny_openfold.pt" in text and "PASS model_3_keys.tsv" in text


def test_a_file_that_cannot_be_read_fails_with_the_reason(weights, capsys):
    (weights / "model_3_tiny_openfold.pt").write_bytes(b"garbage")
    assert main(["parity", str(weights)]) == 1
    text = capsys.readouterr().out
    assert "model_3_tiny_openfold.pt cannot be read: " in text
    assert "FAIL model_3_tiny_openfold.pt: largest error inf" in text
    assert "PASS model_3_tiny.npz" in text


def test_a_wrong_table_fails(weights, capsys):
    table = weights / "model_3_keys.tsv"
    table.write_text(table.read_text().replace("48,256", "48,255", 1))
    assert main(["parity", str(weights)]) == 1
    assert "FAIL model_3_keys.tsv" in capsys.readouterr().out
    table.write_text("one column\n")
    assert main(["parity", str(weights)]) == 2
    assert "line 1 is ['one column']; expected key, tab, shape" in capsys.readouterr().err


def test_what_is_missing_is_named(weights, capsys):
    (weights / "model_3_tiny.npz").unlink()
    (weights / "model_3_tiny_openfold.pt").unlink()
    assert main(["parity", str(weights)]) == 2
    assert "has no weights; expected model_3_tiny.npz or model_3_" in capsys.readouterr().err
    (weights.parent / "model_tiny" / "config.json").unlink()
    assert main(["parity", str(weights)]) == 2
    assert "expected the golden directory model_tiny next to" in capsys.readouterr().err
