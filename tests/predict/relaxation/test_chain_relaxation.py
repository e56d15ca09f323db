"""Relaxation as a part of the command, with predictions that are real structures."""

import importlib.util
import json
import sys

import gemmi
import numpy as np
import pytest
import torch

from openfold_opt.predict import Predictor, PredictorSettings
from openfold_opt.predict.relaxation import RelaxationError
from openfold_opt.predict.relaxation.chain_relaxation import describe_platform, options_for
from openfold_opt.predict.relaxation.minimization import Minimizer
from tests.support import fake_prediction
from tests.support.real_chains import damaged_chain

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openmm") is None,
    reason="openmm is not installed; pip install openmm",
)
TWO_WEIGHTS = ("w_ptm", "v")


@pytest.fixture(scope="module")
def damaged():
    return damaged_chain()


@pytest.fixture
def predicted(damaged, monkeypatch):
    """Let the models of the `run` fixture predict a damaged real structure."""

    def predict(sequence, weights="w"):
        assert sequence == damaged.sequence
        return fake_prediction.FakePrediction(
            positions=damaged.positions,
            atom_mask=damaged.atom_mask,
            plddt=damaged.plddt + (weights == "v"),
            ptm=0.5,
            max_pae=31.75,
        )

    monkeypatch.setattr(fake_prediction, "fake_prediction", predict)
    return {"q": damaged.sequence}


def records_of(folder):
    record = json.loads((folder / "q.json").read_text())
    return record, [model["relaxation"] for model in record["models"]]


def test_the_best_structure_is_relaxed(run, predicted, damaged, tmp_path):
    code, text, _ = run(predicted, "--relax", "best", weights=TWO_WEIGHTS)
    assert code == 0
    assert "relaxation: OpenMM on one core of the CPU" in text
    assert "relaxed: clashes 8 -> 0, CA shift 0." in text
    out = tmp_path / "out"
    record, (best, second) = records_of(out)
    assert second is None
    assert best["status"] == "relaxed" and best["message"] is None
    assert (best["clashes_before"], best["clashes_after"]) == (8, 0)
    assert best["bonds_before"] > 0 and best["bonds_after"] == 0
    assert 0.0 < best["max_ca_shift"] < 0.5
    assert sorted(path.name for path in out.glob("*_relaxed.*")) == sorted(
        ["q_relaxed.cif", "q_relaxed.pdb", "q_rank_1_v_relaxed.cif", "q_rank_1_v_relaxed.pdb"]
    )
    assert {path.name for path in out.glob("*_relaxed.*")} <= set(record["file_bytes"])
    assert not list(out.glob("*.tmp"))
    for name in ("q_relaxed.cif", "q_relaxed.pdb"):
        check_file(out / name, damaged, max_shift=best["max_ca_shift"])
    assert "Amber ff14SB" in (out / "q_relaxed.cif").read_text()
    assert "Amber ff14SB" not in (out / "q.cif").read_text()


def check_file(path, predicted, *, max_shift):
    """Check that a file has the atoms and the pLDDT of a prediction, at other positions."""
    (chain,) = gemmi.read_structure(str(path))[0]
    atoms = [(i, atom) for i, residue in enumerate(chain) for atom in residue]
    assert len(atoms) == predicted.atom_mask.sum()
    assert all(atom.b_iso == pytest.approx(predicted.plddt[i] + 1, abs=0.01) for i, atom in atoms)
    ca = np.array([atom.pos.tolist() for _, atom in atoms if atom.name == "CA"])
    shifts = np.linalg.norm(ca - predicted.ca_positions, axis=-1)
    assert shifts.max() == pytest.approx(max_shift, abs=0.01)


def test_a_failure_leaves_the_structure(run, predicted, damaged, tmp_path, monkeypatch):
    def minimize(self, tolerance):
        raise RelaxationError("the energy is too high")

    monkeypatch.setattr(Minimizer, "minimize", minimize)
    code, text, _ = run(predicted, "--relax", "all", weights=TWO_WEIGHTS)
    assert code == 0
    assert "NOT relaxed" in text
    assert "warning: q: the structure of v is not relaxed: the energy is too high" in text
    record, relaxations = records_of(tmp_path / "out")
    assert record["status"] == "finished"
    assert [entry["status"] for entry in relaxations] == ["failed", "failed"]
    assert relaxations[0]["message"] == "the energy is too high"
    assert sum("is not relaxed" in warning for warning in record["warnings"]) == 2
    assert (tmp_path / "out" / "q.cif").exists()
    assert not list((tmp_path / "out").glob("*relaxed*"))


def test_a_result_that_is_still_wrong_has_a_warning(run, predicted, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Minimizer, "minimize", lambda self, tolerance: 3.0 * 10.0 * self._references
    )
    code, text, _ = run(predicted, "--relax", "best")
    assert code == 0
    record, (entry,) = records_of(tmp_path / "out")
    assert entry["status"] == "relaxed" and entry["num_rounds"] == 3
    assert entry["bonds_after"] == 19
    assert "warning: q: relaxation of w_ptm left violations in 20 residues" in text
    assert any("moved a CA atom by" in warning for warning in record["warnings"])


def test_a_missing_package_is_refused_before_the_start(run, predicted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    code, _, errors = run(predicted, "--relax", "best")
    assert code == 2
    assert "pip install openmm" in errors
    assert not (tmp_path / "out").exists()
    assert run(predicted)[0] == 0
    assert records_of(tmp_path / "out")[1] == [None]


def test_relaxation_is_part_of_the_run(run, predicted):
    assert run(predicted)[0] == 0
    code, _, errors = run(predicted, "--relax", "best")
    assert code == 2
    assert "relax was none and is best" in errors


def test_interrupt_during_relaxation_leaves_no_file(run, predicted, tmp_path, monkeypatch):
    def minimize(self, tolerance):
        raise KeyboardInterrupt

    monkeypatch.setattr(Minimizer, "minimize", minimize)
    code, _, _ = run(predicted, "--relax", "best")
    assert code == 130
    assert not list((tmp_path / "out").glob("q*"))


def test_a_prediction_of_a_model(shared):
    """The atoms of a random model coincide: the error says so, or the structure is relaxed."""
    predictor = Predictor(
        shared / "golden" / "weights" / "model_3_tiny.npz",
        device="cpu",
        settings=PredictorSettings(
            model_config=str(shared / "golden" / "model_tiny" / "config.json"),
            num_recycling_iterations=0,
        ),
    )
    result = predictor.predict("MKTAYIAKQRQISFVKSH")
    with pytest.raises(RelaxationError, match="the energy is not finite, because atoms coincide"):
        result.relaxed()


def test_a_gpu_without_the_platform_cuda_is_said():
    line = describe_platform(torch.device("cuda", 1))
    assert line in (
        "relaxation: OpenMM on the GPU",
        "relaxation: OpenMM on one core of the CPU, because this OpenMM has no platform CUDA",
    )
    assert options_for(torch.device("cuda", 1)).gpu_index == 1
    assert options_for(torch.device("cpu")).gpu_index is None
