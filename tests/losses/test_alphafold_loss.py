"""The total loss agrees with golden results; zero weights; the three stages of training."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import (
    ExperimentallyResolvedLossConfig,
    LossConfig,
    PLDDTLossConfig,
    TMLossConfig,
    ViolationLossConfig,
)
from openfold_opt.model.outputs import ModelOutputs
from tests.support.host_constants import HostConstants

TINY = LossConfig(
    experimentally_resolved=ExperimentallyResolvedLossConfig(weight=0.2),
    violation=ViolationLossConfig(weight=0.3),
    tm=TMLossConfig(weight=0.1),
)
FULL = LossConfig(report_zero_weight_violation=True)
NOT_TERMS = ("weighted_total_loss", "scaled_weighted_total_loss")


def load(shared, name):
    """Return outputs, features of the last pass, and results of a golden directory."""
    batch = np.load(shared / "golden" / name / "batch.npz")
    outputs = np.load(shared / "golden" / name / "outputs.npz")
    known = {field.name for field in dataclasses.fields(ModelOutputs)}
    tensors = {
        key: torch.from_numpy(np.asarray(outputs[key])) for key in outputs.files if key in known
    }
    features = SimpleNamespace(
        **{key: torch.from_numpy(batch[key][..., -1]) for key in batch.files}
    )
    return (
        ModelOutputs(**tensors),
        features,
        json.loads((shared / "golden" / name / "results.json").read_text()),
    )


@pytest.mark.parametrize("name", ["model_tiny", "model_quirks"])
def test_golden_losses(shared, name):
    outputs, batch, expected = load(shared, name)
    result = AlphaFoldLoss(TINY)(outputs, batch)
    for term, value in expected["losses"].items():
        if term not in NOT_TERMS:
            assert float(result.terms[term].mean()) == pytest.approx(value, rel=1e-4), term
    assert float(result.weighted_total.mean()) == pytest.approx(
        expected["losses"]["weighted_total_loss"], rel=1e-4
    )
    assert float(result.loss) == pytest.approx(expected["loss"], rel=1e-4)


@pytest.mark.parametrize("name", ["model_tiny", "model_quirks"])
def test_the_loss_of_fine_tuning_is_the_weighted_sum_of_golden_terms(shared, name):
    outputs, batch, golden = load(shared, name)
    config = LossConfig.finetuning_ptm()
    weights = {
        "fape": config.fape.weight,
        "supervised_chi": config.supervised_chi.weight,
        "distogram": config.distogram.weight,
        "masked_msa": config.masked_msa.weight,
        "plddt_loss": config.plddt.weight,
        "experimentally_resolved": 0.01,
        "violation": 1.0,
        "tm": 0.1,
    }
    assert set(weights) == set(golden["losses"]) - set(NOT_TERMS)
    expected = sum(weight * golden["losses"][term] for term, weight in weights.items())
    result = AlphaFoldLoss(config)(outputs, batch)
    assert float(result.weighted_total.mean()) == pytest.approx(expected, rel=1e-4)


def test_golden_losses_of_each_sample(shared):
    outputs, batch, expected = load(shared, "model_quirks")
    result = AlphaFoldLoss(TINY)(outputs, batch)
    for i, sample in enumerate(expected["samples"]):
        losses = expected["per_sample"][sample]
        for term, values in result.terms.items():
            assert float(values[i]) == pytest.approx(losses[term], rel=1e-4, abs=1e-7), (
                sample,
                term,
            )
        assert float(result.scaled_total[i]) == pytest.approx(
            losses["scaled_weighted_total_loss"], rel=1e-4
        )


@pytest.fixture
def quirks(shared):
    """Outputs and features of the golden directory model_quirks."""
    outputs, batch, _ = load(shared, "model_quirks")
    return outputs, batch


def test_nan_terms_of_weight_zero_do_not_affect_the_loss(quirks):
    outputs, batch = quirks
    config = dataclasses.replace(FULL, plddt=PLDDTLossConfig(weight=0.0))
    logits = torch.full_like(outputs.lddt_logits, float("nan")).requires_grad_()
    with_nan = AlphaFoldLoss(config)(dataclasses.replace(outputs, lddt_logits=logits), batch)
    without_nan = AlphaFoldLoss(config)(outputs, batch)
    assert torch.isnan(with_nan.terms["plddt_loss"]).any()
    assert torch.equal(with_nan.weighted_total, without_nan.weighted_total)
    assert not any(with_nan.terms[name].requires_grad for name in ("plddt_loss", "violation", "tm"))


def test_samples_are_weighted_by_the_root_of_their_length_after_cropping(quirks):
    outputs, batch = quirks
    batch.seq_length = torch.tensor([4, 9, 20, 25])
    result = AlphaFoldLoss(TINY)(outputs, batch)
    torch.testing.assert_close(
        result.scaled_total, result.weighted_total * torch.tensor([4.0, 9.0, 20.0, 20.0]).sqrt()
    )
    torch.testing.assert_close(result.loss, result.scaled_total.mean())


def test_nan_terms_of_nonzero_weight_make_the_loss_nan(quirks):
    outputs, batch = quirks
    logits = torch.full_like(outputs.distogram_logits, float("nan"))
    result = AlphaFoldLoss(FULL)(dataclasses.replace(outputs, distogram_logits=logits), batch)
    assert not torch.isfinite(result.loss)


def test_violation_of_weight_zero_is_computed_only_on_request(quirks):
    assert "violation" not in AlphaFoldLoss(LossConfig())(*quirks).terms
    assert "violation" in AlphaFoldLoss(FULL)(*quirks).terms


def test_tm_weight_requires_the_tm_score_head(quirks):
    outputs, batch = quirks
    with pytest.raises(ValueError, match="no TM-score head"):
        AlphaFoldLoss(TINY)(dataclasses.replace(outputs, tm_logits=None), batch)


PREDICTED = (
    "sm_frames",
    "sm_sidechain_frames",
    "sm_unnormalized_angles",
    "sm_angles",
    "sm_positions",
    "final_atom_positions",
    "final_affine_tensor",
)


@pytest.mark.parametrize("is_resolved", [True, False])
def test_gradients_are_finite_if_all_atoms_coincide_or_none_is_resolved(quirks, is_resolved):
    outputs, batch = quirks
    leaves = {name: torch.zeros_like(getattr(outputs, name)).requires_grad_() for name in PREDICTED}
    if not is_resolved:
        masks = [name for name in vars(batch) if name.endswith(("_mask", "_exists"))]
        batch = SimpleNamespace(
            **(vars(batch) | {name: torch.zeros_like(getattr(batch, name)) for name in masks})
        )
    result = AlphaFoldLoss(TINY)(dataclasses.replace(outputs, **leaves), batch)
    assert torch.isfinite(result.loss)
    result.loss.backward()
    for name, leaf in leaves.items():
        assert leaf.grad is None or torch.isfinite(leaf.grad).all(), name
    # These outputs are used only for the targets of pLDDT and aligned error, so they have no
    # gradient.
    assert [name for name, leaf in leaves.items() if leaf.grad is None] == [
        "final_atom_positions",
        "final_affine_tensor",
    ]


def test_nan_atoms_give_a_nan_loss_and_no_index_error(quirks):
    outputs, batch = quirks
    nan_outputs = {
        name: torch.full_like(getattr(outputs, name), float("nan")) for name in PREDICTED
    }
    result = AlphaFoldLoss(TINY)(dataclasses.replace(outputs, **nan_outputs), batch)
    assert not torch.isfinite(result.terms["fape"]).any() and not torch.isfinite(result.loss)


def test_second_step_copies_no_constant_from_the_host(quirks):
    outputs, batch = quirks
    AlphaFoldLoss(TINY)(outputs, batch)
    with HostConstants() as constants:
        AlphaFoldLoss(TINY)(outputs, batch)
    assert constants.count == 0


def test_weights_of_the_three_training_stages():
    first, second, third = (
        LossConfig.initial_training(),
        LossConfig.finetuning(),
        LossConfig.finetuning_ptm(),
    )
    assert (first.violation.weight, first.experimentally_resolved.weight, first.tm.weight) == (
        0.0,
        0.0,
        0.0,
    )
    assert (second.violation.weight, second.experimentally_resolved.weight, second.tm.weight) == (
        1.0,
        0.01,
        0.0,
    )
    assert (third.violation.weight, third.experimentally_resolved.weight, third.tm.weight) == (
        1.0,
        0.01,
        0.1,
    )
