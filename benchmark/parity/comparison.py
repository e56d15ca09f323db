"""Relative errors, padding excluded, and their tolerances."""

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
"""For a gradient that is zero except for rounding; relative to the norm of all gradients."""
STEP_TOLERANCE = 1e-3
"""For every metric of the first steps after a stored state (NUM_CLOSE_STEPS in trajectory.py), and
for the total update of these steps. Rounding differences were below 1e-4 on all tested processors.
"""
BINNED_TERM_TOLERANCE = 1e-2
"""For BINNED_TERMS in these steps."""
BINNED_TERMS = frozenset(("plddt_loss", "tm"))
"""Terms whose target is a bin of a metric of the predicted structure. They are not continuous: one
residue or pair that rounding moves into another bin changes them by about 1e-3."""
DISTANT_LOSS_TOLERANCE = 1e-2
DISTANT_TERM_TOLERANCE = 1e-1
DISTANT_UPDATE_TOLERANCE = 1e-1
"""For the loss, for single terms and the gradient norm, and for the update, in all later steps.
These limits detect only coarse errors, because rounding errors grow about tenfold per step: another
instruction set, number of threads or DAP size changes the loss by 1e-3, single terms by 7e-3, the
gradient norm by 2e-2 and the update by 2e-2."""

# Dims of one sample: [N_res, N_res, ...], [N_seq, N_res, ...], [blocks, N_res, ...]; all other
# outputs have [N_res, ...].
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
    """The error of one quantity."""

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
    norm = golden.norm().item()
    return (ours - golden).norm().item() / (norm if norm > 0.0 else 1.0)


def unpadded(name: str, value: Tensor, features: FeatureBatch) -> Tensor:
    """Return all elements of an output outside of the padding, as one vector.

    Args:
        name: field of ModelOutputs.
        value: the output [batch, ...], or only its first rows (residues of pairs, sequences of the
            MSA).
        features: the batch at the pass that computed the output.
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
