"""lDDT, the local distance difference test (Mariani et al. 2013).

It is the target of the pLDDT head and the metric of the benchmark.
"""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.losses.reductions import pairwise_distance

THRESHOLDS_ANGSTROM = (0.5, 1.0, 2.0, 4.0)


def lddt(
    predicted: Tensor,
    true: Tensor,
    mask: Tensor,
    *,
    cutoff_angstrom: float = 15.0,
    eps: float = 1e-8,
    per_residue: bool = True,
) -> Tensor:
    """Compute the fraction of preserved distances, averaged over four thresholds.

    Only pairs with a true distance below the cutoff count. A distance is preserved if its error is
    below the threshold.

    Args:
        predicted: [..., N_res, 3] angstrom, one atom per residue (CA for lDDT-Ca).
        true: [..., N_res, 3] angstrom.
        mask: [..., N_res], 1 if the true atom is resolved.
        per_residue: Whether to return one value per residue or one per chain.

    Returns:
        [..., N_res] or [...], from 0 to 1. The value of a residue without neighbors is 1.
    """
    true_distance = pairwise_distance(true, true, eps=eps)
    error = (true_distance - pairwise_distance(predicted, predicted, eps=eps)).abs()
    is_other = 1.0 - torch.eye(mask.shape[-1], device=mask.device, dtype=mask.dtype)
    is_counted = (
        (true_distance < cutoff_angstrom) * mask[..., :, None] * mask[..., None, :] * is_other
    )
    preserved = sum((error < threshold).to(error.dtype) for threshold in THRESHOLDS_ANGSTROM) / len(
        THRESHOLDS_ANGSTROM
    )
    dims = (-1,) if per_residue else (-2, -1)
    return (eps + (is_counted * preserved).sum(dims)) / (eps + is_counted.sum(dims))
