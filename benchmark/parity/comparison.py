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
"""Of a gradient that is zero but for rounding, relative to the norm of all gradients."""
TRAJECTORY_TOLERANCE = 1e-3
"""Of the loss of every optimiser step."""
TRAJECTORY_TERM_TOLERANCE = 1e-2
TRAJECTORY_NORM_TOLERANCE = 5e-2
"""Of single terms and of the gradient norm in steps made from the start. The golden run is chaotic: changing its first
weights by 3e-8 of themselves moves single terms of steps 7 and 8 by up to 5e-3, and their gradient norm by 2e-2.
Steps continued from the stored checkpoint have not had the time to drift, and are held to TRAJECTORY_TOLERANCE in all."""
UPDATE_TOLERANCE = 1e-2
SPREAD_UPDATE_TOLERANCE = 3e-2
"""Of all parameters after the steps made from the start by a dap group, whose sums have another order: the perturbations of 3e-8
above move it by 3e-3 to 9e-3, the other order by 4e-3 to 1.5e-2."""

_PAIR_OUTPUTS = frozenset(
    ("pair", "distogram_logits", "tm_logits", "aligned_confidence_probs", "predicted_aligned_error")
)
_MSA_OUTPUTS = frozenset(("msa", "masked_msa_logits"))
_BLOCK_OUTPUTS = frozenset(
    ("sm_frames", "sm_sidechain_frames", "sm_unnormalized_angles", "sm_angles", "sm_positions", "sm_states")
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure that was compared."""

    section: str
    """"outputs", "losses", "gradients", ..."""
    name: str
    error: float
    """||ours - golden|| / ||golden||; the plain norm of ours where golden is zero."""
    tolerance: float

    @property
    def is_within(self) -> bool:
        """Whether the error is finite and within tolerance."""
        return math.isfinite(self.error) and self.error <= self.tolerance


def relative_error(ours: Tensor | float, golden: Tensor | float) -> float:
    """||ours - golden|| / ||golden||, in float64; infinite if the shapes differ or ours is not finite."""
    ours, golden = (torch.as_tensor(x).detach().to("cpu", torch.float64) for x in (ours, golden))
    if ours.shape != golden.shape or not bool(torch.isfinite(ours).all()):
        return math.inf
    size = golden.norm().item()
    return (ours - golden).norm().item() / (size if size > 0.0 else 1.0)


def unpadded(name: str, value: Tensor, features: FeatureBatch) -> Tensor:
    """All elements of an output that belong to residues, rows and pairs that exist, as one vector.

    Args:
        name: field of ModelOutputs.
        value: the whole output, or its first rows only (of residues for pairs, of sequences for the MSA).
        features: the batch at the pass that made the output.
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
