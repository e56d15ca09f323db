"""Superposition of two structures, and the measures that are read off it: RMSD and GDT; and dRMSD, which needs none."""

from __future__ import annotations

import torch
from torch import Tensor

GDT_TS_THRESHOLDS_ANGSTROM = (1.0, 2.0, 4.0, 8.0)
GDT_HA_THRESHOLDS_ANGSTROM = (0.5, 1.0, 2.0, 4.0)


def superimpose(mobile: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn and shift mobile onto target so that the masked points fit best (Kabsch 1976).

    Args:
        mobile, target: [..., N, 3] angstrom; mask: [..., N], 1 for points that count, at least one of them.

    Returns:
        all of mobile, moved, [..., N, 3], and the RMSD of the points that count, [...], angstrom, both of mobile's dtype;
        computed in float64.
    """
    weight = mask.to(torch.float64)[..., None]
    count = weight.sum(-2, keepdim=True)
    moved, fixed = mobile.to(torch.float64), target.to(torch.float64)
    center_moved, center_fixed = (
        (weight * points).sum(-2, keepdim=True) / count for points in (moved, fixed)
    )
    covariance = (weight * (moved - center_moved)).transpose(-1, -2) @ (fixed - center_fixed)
    left, _, right = torch.linalg.svd(covariance)
    # a reflection fits no molecule: turn the least important axis round
    sign = torch.ones_like(left[..., 0])
    sign[..., 2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = (left * sign[..., None, :]) @ right
    fitted = (moved - center_moved) @ rotation + center_fixed
    return fitted.to(mobile.dtype), rmsd(fitted, fixed, mask).to(mobile.dtype)


def rmsd(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Root mean square distance of points as they lie: [..., N, 3] and [..., N] -> [...] angstrom."""
    square = ((predicted - true) ** 2).sum(-1)
    return torch.sqrt((square * mask).sum(-1) / mask.sum(-1))


def gdt(
    predicted: Tensor, true: Tensor, mask: Tensor, *, thresholds_angstrom: tuple[float, ...]
) -> Tensor:
    """Mean over thresholds of the share of points within them, for structures already superimposed: [...], 0 to 1."""
    distance = torch.sqrt(((predicted - true) ** 2).sum(-1))
    shares = [
        ((distance <= threshold) * mask).sum(-1) / mask.sum(-1) for threshold in thresholds_angstrom
    ]
    return torch.stack(shares).mean(0)


def drmsd(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Root mean square difference of all pairwise distances: [..., N, 3] and [..., N] -> [...] angstrom."""
    # without matrix products: they would be rounded to TF32 on a GPU, and near zero they lose digits everywhere
    mode = "donot_use_mm_for_euclid_dist"
    difference = torch.cdist(predicted, predicted, compute_mode=mode) - torch.cdist(
        true, true, compute_mode=mode
    )
    count = mask.sum(-1)
    square = difference**2 * mask[..., :, None] * mask[..., None, :]
    return torch.sqrt(square.sum((-1, -2)) / (count * (count - 1)).clamp(min=1))
