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
    tensors = {key: torch.from_numpy(np.asarray(outputs[key])) for key in outputs.files if key in known}
    features = SimpleNamespace(**{key: torch.from_numpy(batch[key][..., -1]) for key in batch.files})
    return ModelOutputs(**tensors), features, json.loads((shared / "golden" / name / "results.json").read_text())


@pytest.mark.parametrize("name", ["model_tiny", "model_quirks"])
def test_golden_losses(shared, name):
    outputs, batch, expected = load(shared, name)
    result = AlphaFoldLoss(TINY)(outputs, batch)
    for term, value in expected["losses"].items():
        if term not in NOT_TERMS:
            assert float(result.terms[term].mean()) == pytest.approx(value, rel=1e-4), term
    assert float(result.weighted_total.mean()) == pytest.approx(expected["losses"]["weighted_total_loss"], rel=1e-4)
    assert float(result.loss) == pytest.approx(expected["loss"], rel=1e-4)


def test_golden_losses_of_each_sample(shared):
    outputs, batch, expected = load(shared, "model_quirks")
    result = AlphaFoldLoss(TINY)(outputs, batch)
    for place, sample in enumerate(expected["samples"]):
        figures = expected["per_sample"][sample]
        for term, values in result.terms.items():
            assert float(values[place]) == pytest.approx(figures[term], rel=1e-4, abs=1e-7), (sample, term)
        assert float(result.scaled_total[place]) == pytest.approx(figures["scaled_weighted_total_loss"], rel=1e-4)


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


def test_stages_of_training():
    first, second, third = LossConfig.initial_training(), LossConfig.finetuning(), LossConfig.finetuning_ptm()
    assert (first.violation.weight, first.experimentally_resolved.weight, first.tm.weight) == (0.0, 0.0, 0.0)
    assert (second.violation.weight, second.experimentally_resolved.weight, second.tm.weight) == (1.0, 0.01, 0.0)
    assert (third.violation.weight, third.experimentally_resolved.weight, third.tm.weight) == (1.0, 0.01, 0.1)
