"""Compare the forward pass, the losses and the gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmark.parity.comparison import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    OUTPUT_TOLERANCE,
    ZERO_GRADIENT_TOLERANCE,
    Comparison,
    relative_error,
    unpadded,
)
from benchmark.parity.golden_directory import GoldenDirectory
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss, LossTerms
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.auxiliary_heads import predicted_tm_score
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.gradients import average_gradients
from openfold_opt.protein.features import FEATURES

ZERO_GRADIENTS = ("msa_att_row.layer_norm_z.bias", "ipa.linear_b.bias")
"""Ends of the names of parameters that add a constant to all attention logits of a row, which the
softmax removes. Their gradient is zero; golden files contain rounding errors."""


def compare_forward(
    golden: GoldenDirectory, model: AlphaFold, loss_config: LossConfig, plan: ExecutionPlan
) -> list[Comparison]:
    """Compare outputs after all recycling iterations, their losses, and stored gradients."""
    num_passes = golden.batch.num_passes
    has_gradients = golden.has("grads.npz")
    features = golden.batch.at_pass(num_passes - 1)
    with torch.set_grad_enabled(has_gradients):
        outputs = model(golden.batch, plan, num_recycling_iterations=num_passes - 1)
        terms = AlphaFoldLoss(loss_config)(outputs, features)
    comparisons = []
    if golden.has("outputs.npz"):
        expected = golden.arrays("outputs.npz")
        comparisons += compare_outputs("outputs", outputs, expected, features, model.config)
    comparisons += compare_losses(terms, golden.results)
    if has_gradients:
        terms.loss.backward()
        comparisons += _compare_gradients(model, golden, plan)
    return comparisons


def compare_single_pass(
    golden: GoldenDirectory, model: AlphaFold, plan: ExecutionPlan
) -> list[Comparison]:
    """Compare the outputs of a single pass on the features of the last pass of the batch."""
    last = golden.batch.num_passes - 1
    last_features = {
        name: getattr(golden.batch, name)[:, last:]
        for name, spec in FEATURES.items()
        if spec.per_pass
    }
    batch = dataclasses.replace(golden.batch, **last_features)
    with torch.no_grad():
        outputs = model(batch, plan, num_recycling_iterations=0)
    return compare_outputs(
        "outputs without recycling",
        outputs,
        golden.arrays("outputs_no_recycling.npz"),
        batch.at_pass(0),
        model.config,
    )


def compare_outputs(
    section: str,
    outputs: ModelOutputs,
    expected: Mapping[str, Tensor],
    features: FeatureBatch,
    config: ModelConfig,
) -> list[Comparison]:
    """Compare each stored output. model_full stores only the first rows of large ones."""
    comparisons = []
    for name, value in expected.items():
        ours = getattr(outputs, name, None)
        if ours is None:
            error = float("inf")
        elif name == "predicted_tm_score":
            error = relative_error(_reference_tm_score(outputs, config), value)
        else:
            ours = ours[:, : value.shape[1]] if value.ndim > 1 else ours
            error = relative_error(unpadded(name, ours, features), unpadded(name, value, features))
        comparisons.append(
            Comparison(section=section, name=name, error=error, tolerance=OUTPUT_TOLERANCE)
        )
    return comparisons


def _reference_tm_score(outputs: ModelOutputs, config: ModelConfig) -> Tensor:
    """Compute the TM score of the MLCommons reference from our aligned errors.

    It counts padding, and it is the best score of the batch. Ours has one score for each sample,
    without padding.
    """
    probabilities = outputs.aligned_confidence_probs
    everything = probabilities.new_ones(probabilities.shape[:2])
    max_bin = config.auxiliary_heads.max_bin_aligned_error_angstrom
    return predicted_tm_score(probabilities, everything, max_bin).amax()


def compare_losses(terms: LossTerms, results: Mapping[str, Any]) -> list[Comparison]:
    """Compare terms, their weighted sum and the loss, as batch means and, if stored, by sample."""
    ours = {
        **terms.terms,
        "weighted_total_loss": terms.weighted_total,
        "scaled_weighted_total_loss": terms.scaled_total,
    }
    pairs = {name: (_mean(ours.get(name)), value) for name, value in results["losses"].items()}
    pairs["loss"] = (terms.loss, results["loss"])
    for index, (sample, losses) in enumerate(results.get("per_sample", {}).items()):
        for name, value in losses.items():
            pairs[f"{name} of sample {sample}"] = (
                ours[name][index] if name in ours else float("nan"),
                value,
            )
    return [
        Comparison(
            section="losses",
            name=name,
            error=relative_error(our_value, value),
            tolerance=LOSS_TOLERANCE,
        )
        for name, (our_value, value) in pairs.items()
    ]


def _mean(values: Tensor | None) -> Tensor | float:
    return float("nan") if values is None else values.mean()


def _compare_gradients(
    model: AlphaFold, golden: GoldenDirectory, plan: ExecutionPlan
) -> list[Comparison]:
    expected = golden.arrays("grads.npz")
    ours = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    # Under DAP, the gradient is the mean over the ranks, as in training.
    for gradient in ours.values():
        average_gradients(gradient.view(-1), plan.dap, bucket_bytes=gradient.nbytes)
    known = [name for name in expected if name in ours]
    together = [
        torch.cat([tensors[name].flatten() for name in known]) for tensors in (ours, expected)
    ]
    norm = together[1].norm()
    comparisons = []
    for name, value in expected.items():
        error, tolerance = float("inf"), GRADIENT_TOLERANCE
        if name.endswith(ZERO_GRADIENTS):
            error, tolerance = (ours[name].norm() / norm).item(), ZERO_GRADIENT_TOLERANCE
        elif name in ours:
            error = relative_error(ours[name], value)
        comparisons.append(
            Comparison(section="gradients", name=name, error=error, tolerance=tolerance)
        )
    totals = {"all together": relative_error(*together)}
    if "grad_norm" in golden.results:
        totals["global norm"] = relative_error(together[0].norm(), golden.results["grad_norm"])
    return comparisons + [
        Comparison(section="gradients", name=name, error=error, tolerance=GRADIENT_TOLERANCE)
        for name, error in totals.items()
    ]
