"""Superposition of two structures, and the metrics RMSD, GDT and dRMSD."""

from __future__ import annotations

import torch
from torch import Tensor

GDT_TS_THRESHOLDS_ANGSTROM = (1.0, 2.0, 4.0, 8.0)
GDT_HA_THRESHOLDS_ANGSTROM = (0.5, 1.0, 2.0, 4.0)


def superimpose(mobile: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Superimpose mobile on target with minimal RMSD of the masked points (Kabsch 1976).

    The computation is in float64.

    Args:
        mobile: [..., N, 3] angstrom.
        target: [..., N, 3] angstrom.
        mask: [..., N], 1 for the points to fit. At least one element must be 1.

    Returns:
        All points of mobile after superposition, [..., N, 3], and the RMSD of the masked points,
        [...], angstrom. Both have the dtype of mobile.
    """
    weight = mask.to(torch.float64)[..., None]
    count = weight.sum(-2, keepdim=True)
    moved, fixed = mobile.to(torch.float64), target.to(torch.float64)
    center_moved, center_fixed = (
        (weight * points).sum(-2, keepdim=True) / count for points in (moved, fixed)
    )
    covariance = (weight * (moved - center_moved)).transpose(-1, -2) @ (fixed - center_fixed)
    left, _, right = torch.linalg.svd(covariance)
    # Reflections are not allowed: invert the axis of the smallest singular value if necessary.
    sign = torch.ones_like(left[..., 0])
    sign[..., 2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = (left * sign[..., None, :]) @ right
    fitted = (moved - center_moved) @ rotation + center_fixed
    return fitted.to(mobile.dtype), rmsd(fitted, fixed, mask).to(mobile.dtype)


def rmsd(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Compute the root mean square distance of points without superposition.

    Args:
        predicted: [..., N, 3] angstrom.
        true: [..., N, 3] angstrom.
        mask: [..., N].

    Returns:
        [...] angstrom.
    """
    square = ((predicted - true) ** 2).sum(-1)
    return torch.sqrt((square * mask).sum(-1) / mask.sum(-1))


def gdt(
    predicted: Tensor, true: Tensor, mask: Tensor, *, thresholds_angstrom: tuple[float, ...]
) -> Tensor:
    """Compute the global distance test (GDT) of two structures.

    Args:
        predicted: [..., N, 3] angstrom, already superimposed on true.
        true: [..., N, 3] angstrom.
        mask: [..., N].

    Returns:
        [...], the fraction of points within each threshold, averaged over the thresholds.
    """
    distance = torch.sqrt(((predicted - true) ** 2).sum(-1))
    fractions = [
        ((distance <= threshold) * mask).sum(-1) / mask.sum(-1) for threshold in thresholds_angstrom
    ]
    return torch.stack(fractions).mean(0)


def drmsd(predicted: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Compute the root mean square difference of all pairwise distances.

    Args:
        predicted: [..., N, 3] angstrom.
        true: [..., N, 3] angstrom.
        mask: [..., N].

    Returns:
        [...] angstrom.
    """
    # Matrix products would be rounded to TF32 on a GPU, and for small distances they lose
    # precision on every device.
    mode = "donot_use_mm_for_euclid_dist"
    difference = torch.cdist(predicted, predicted, compute_mode=mode) - torch.cdist(
        true, true, compute_mode=mode
    )
    count = mask.sum(-1)
    square = difference**2 * mask[..., :, None] * mask[..., None, :]
    return torch.sqrt(square.sum((-1, -2)) / (count * (count - 1)).clamp(min=1))
