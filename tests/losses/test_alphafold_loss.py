"""The whole loss against golden results, from stored outputs; what weights of zero mean; the three stages of training."""

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
from tests.host_constants import HostConstants

TINY = LossConfig(
    experimentally_resolved=ExperimentallyResolvedLossConfig(weight=0.2),
    violation=ViolationLossConfig(weight=0.3),
    tm=TMLossConfig(weight=0.1),
)
FULL = LossConfig(report_zero_weight_violation=True)
NOT_TERMS = ("weighted_total_loss", "scaled_weighted_total_loss")


def load(shared, name):
    """Outputs and the features of the last pass of a golden directory."""
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


def test_golden_losses_of_each_sample(shared):
    outputs, batch, expected = load(shared, "model_quirks")
    result = AlphaFoldLoss(TINY)(outputs, batch)
    for place, sample in enumerate(expected["samples"]):
        figures = expected["per_sample"][sample]
        for term, values in result.terms.items():
            assert float(values[place]) == pytest.approx(figures[term], rel=1e-4, abs=1e-7), (
                sample,
                term,
            )
        assert float(result.scaled_total[place]) == pytest.approx(
            figures["scaled_weighted_total_loss"], rel=1e-4
        )


@pytest.fixture
def quirks(shared):
    outputs, batch, _ = load(shared, "model_quirks")
    return outputs, batch


def test_terms_of_weight_zero_do_not_count_even_if_they_are_not_numbers(quirks):
    outputs, batch = quirks
    config = dataclasses.replace(FULL, plddt=PLDDTLossConfig(weight=0.0))
    logits = torch.full_like(outputs.lddt_logits, float("nan")).requires_grad_()
    broken = AlphaFoldLoss(config)(dataclasses.replace(outputs, lddt_logits=logits), batch)
    whole = AlphaFoldLoss(config)(outputs, batch)
    assert torch.isnan(broken.terms["plddt_loss"]).any()
    assert torch.equal(broken.weighted_total, whole.weighted_total)
    assert not any(broken.terms[name].requires_grad for name in ("plddt_loss", "violation", "tm"))


def test_samples_count_by_the_root_of_their_length_after_cropping(quirks):
    outputs, batch = quirks
    batch.seq_length = torch.tensor([4, 9, 20, 25])
    result = AlphaFoldLoss(TINY)(outputs, batch)
    torch.testing.assert_close(
        result.scaled_total, result.weighted_total * torch.tensor([4.0, 9.0, 20.0, 20.0]).sqrt()
    )
    torch.testing.assert_close(result.loss, result.scaled_total.mean())


def test_a_term_that_counts_is_never_hidden(quirks):
    outputs, batch = quirks
    logits = torch.full_like(outputs.distogram_logits, float("nan"))
    result = AlphaFoldLoss(FULL)(dataclasses.replace(outputs, distogram_logits=logits), batch)
    assert not torch.isfinite(result.loss)


def test_violations_of_weight_zero_are_computed_on_demand_only(quirks):
    assert "violation" not in AlphaFoldLoss(LossConfig())(*quirks).terms
    assert "violation" in AlphaFoldLoss(FULL)(*quirks).terms


def test_a_tm_weight_wants_the_head(quirks):
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
def test_gradients_are_finite_where_all_atoms_coincide_or_none_is_resolved(quirks, is_resolved):
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
    # what only makes targets (the lDDT-Ca to predict, the aligned error to predict) gets no gradient
    assert [name for name, leaf in leaves.items() if leaf.grad is None] == [
        "final_atom_positions",
        "final_affine_tensor",
    ]


def test_atoms_that_are_no_numbers_are_reported_and_not_an_index_error(quirks):
    outputs, batch = quirks
    broken = {name: torch.full_like(getattr(outputs, name), float("nan")) for name in PREDICTED}
    result = AlphaFoldLoss(TINY)(dataclasses.replace(outputs, **broken), batch)
    assert not torch.isfinite(result.terms["fape"]).any() and not torch.isfinite(result.loss)


def test_no_constant_comes_from_the_host_in_a_step(quirks):
    outputs, batch = quirks
    AlphaFoldLoss(TINY)(outputs, batch)
    with HostConstants() as constants:
        AlphaFoldLoss(TINY)(outputs, batch)
    assert constants.count == 0


def test_stages_of_training():
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
