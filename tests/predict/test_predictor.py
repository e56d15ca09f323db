"""Predictor: the Python interface, with small weights in AlphaFold's layout."""

import gemmi
import numpy as np
import pytest

from openfold_opt.predict import Predictor, PredictorSettings
from openfold_opt.predict.__main__ import main

SEQUENCE = "MKTAYIAKQRQISFVKSH"


def settings(shared, **changes) -> PredictorSettings:
    """Settings for the small model: one recycling iteration, so that a test takes seconds."""
    return PredictorSettings(
        model_config=str(shared / "golden" / "model_tiny" / "config.json"),
        num_recycling_iterations=1,
        **changes,
    )


def weights(shared, name: str):
    return shared / "golden" / "weights" / name


@pytest.fixture
def alignment(tmp_path):
    path = tmp_path / "q.a3m"
    path.write_text(f">q\n{SEQUENCE}\n>r\n{SEQUENCE[:-4]}AAAA\n")
    return path


def test_a_sequence_with_two_sets_of_weights(shared, tmp_path, alignment):
    paths = [weights(shared, "model_1_ptm_tiny.npz"), weights(shared, "model_3_tiny.npz")]
    predictor = Predictor(paths, device="cpu", settings=settings(shared))
    result = predictor.predict(SEQUENCE, name="q", alignments=alignment)
    assert set(result.ranking) == {"model_1_ptm_tiny", "model_3_tiny"}
    assert result.best.positions.shape == (len(SEQUENCE), 37, 3)
    pae = result.pae_matrices["model_1_ptm_tiny"]
    assert pae.shape == (len(SEQUENCE), len(SEQUENCE)) and pae.dtype == np.float16
    assert result.pae_matrices["model_3_tiny"] is None
    structure = gemmi.read_structure(str(result.write(tmp_path / "out")))
    atoms = [atom for residue in structure[0]["A"] for atom in residue]
    assert len(atoms) == result.best.atom_mask.sum()
    assert (tmp_path / "out" / "q_rank_2_model_3_tiny.cif").exists() or (
        tmp_path / "out" / "q_rank_1_model_3_tiny.cif"
    ).exists()


def test_a_wrong_sequence_is_a_value_error(shared):
    predictor = Predictor(
        weights(shared, "model_3_tiny.npz"), device="cpu", settings=settings(shared)
    )
    with pytest.raises(ValueError, match="separates the chains of a complex"):
        predictor.predict("MK:TA")


def test_the_command_gives_the_result_of_the_python_interface(shared, tmp_path, alignment, capsys):
    path = weights(shared, "model_1_ptm_tiny.npz")
    arguments = [alignment, "--weights", path, "--out", tmp_path / "out", "--device", "cpu"]
    arguments += ["--model-config", shared / "golden" / "model_tiny" / "config.json"]
    assert main([str(x) for x in [*arguments, "--recycling", 1]]) == 0
    assert "num_recycling_iterations 1 (option)" in capsys.readouterr().out
    predictor = Predictor(path, device="cpu", settings=settings(shared))
    result = predictor.predict(SEQUENCE, name="q", alignments=alignment)
    assert (tmp_path / "out" / "q.cif").read_text() == result.mmcif()
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "q_pae.npy"), result.pae)
