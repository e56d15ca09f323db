"""Relative errors over the unpadded part of a batch, and their tolerances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch

OUTPUT_TOLERANCE = 1e-4
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
ZERO_GRADIENT_TOLERANCE = 1e-6
"""Of a gradient that is zero except for rounding, relative to the norm of all gradients."""
STEP_TOLERANCE = 1e-3
"""Of every metric of a step close to a stored state, and of the total update of these steps.
Rounding differences were below 1e-4 on every processor that was tried."""
BINNED_TERM_TOLERANCE = 1e-2
"""Of BINNED_TERMS in steps close to a stored state."""
BINNED_TERMS = frozenset(("plddt_loss", "tm"))
"""Terms whose target is a bin of a metric of the predicted structure. They are not continuous: one
residue or pair that rounding moves into another bin changes them by about 1e-3."""
DISTANT_LOSS_TOLERANCE = 1e-2
DISTANT_TERM_TOLERANCE = 1e-1
DISTANT_UPDATE_TOLERANCE = 1e-1
"""Of the loss, of single terms and the gradient norm, and of the update, in steps far from a stored
state. These limits detect only coarse errors, because rounding errors grow about tenfold per step:
another instruction set, number of threads or DAP size changes the loss by 1e-3, single terms by
7e-3, the gradient norm by 2e-2 and the update by 2e-2."""

_PAIR_OUTPUTS = frozenset(
    ("pair", "distogram_logits", "tm_logits", "aligned_confidence_probs", "predicted_aligned_error")
)
_MSA_OUTPUTS = frozenset(("msa", "masked_msa_logits"))
_BLOCK_OUTPUTS = frozenset(
    (
        "sm_frames",
        "sm_sidechain_frames",
        "sm_unnormalized_angles",
        "sm_angles",
        "sm_positions",
        "sm_states",
    )
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison."""

    section: str
    """"outputs", "losses", "gradients", ..."""
    name: str
    error: float
    """||ours - golden|| / ||golden||; the norm of ours if golden is zero."""
    tolerance: float

    @property
    def is_within(self) -> bool:
        """Whether the error is finite and within tolerance."""
        return math.isfinite(self.error) and self.error <= self.tolerance


def relative_error(ours: Tensor | float, golden: Tensor | float) -> float:
    """Return ||ours - golden|| / ||golden|| in float64.

    It is infinite if the shapes differ or ours is not finite.
    """
    ours, golden = (torch.as_tensor(x).detach().to("cpu", torch.float64) for x in (ours, golden))
    if ours.shape != golden.shape or not bool(torch.isfinite(ours).all()):
        return math.inf
    size = golden.norm().item()
    return (ours - golden).norm().item() / (size if size > 0.0 else 1.0)


def unpadded(name: str, value: Tensor, features: FeatureBatch) -> Tensor:
    """Return all elements of an output outside of the padding, as one vector.

    Args:
        name: field of ModelOutputs.
        value: the output [batch, ...], or only its first rows (residues of pairs, sequences of the
            MSA).
        features: the batch at the recycling iteration of the output.
    """
    if value.ndim < 2:
        return value.flatten()
    parts = []
    for sample, exists, rows in zip(value, features.seq_mask.bool(), features.msa_row_mask.bool()):
        if name in _PAIR_OUTPUTS:
            sample = sample[exists[: sample.shape[0]]][:, exists]
        elif name in _MSA_OUTPUTS:
            sample = sample[rows[: sample.shape[0]]][:, exists]
        elif name in _BLOCK_OUTPUTS:
            sample = sample[:, exists]
        else:
            sample = sample[exists]
        parts.append(sample.flatten())
    return torch.cat(parts)
