"""Frame aligned point error (AF2 suppl. 1.9.2, Algorithm 28)."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.losses.config import FapeLossConfig
from openfold_opt.losses.renaming import RenamedTruth
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs


def squared_distance_in_frames(
    frames: tuple[Rigid, Rigid], points: tuple[Tensor, Tensor]
) -> Tensor:
    """Compute squared distances of predicted and true points in predicted and true local frames.

    Each coordinate is computed separately with elementwise products: a matrix product would be
    rounded to TF32 on a GPU, and tensors with a last dim of 3 are slow on every device.

    Args:
        frames: Predicted and true frames, [..., N_frames].
        points: Predicted and true points, [..., N_points, 3] angstrom.

    Returns:
        [..., N_frames, N_points], square angstrom.
    """
    predicted, true = (
        _points_in_frames(frame, point) for frame, point in zip(frames, points, strict=True)
    )
    return sum((p - t).square() for p, t in zip(predicted, true, strict=True))


def _points_in_frames(frames: Rigid, points: Tensor) -> list[Tensor]:
    """Return the x, y and z of every point in every frame, each [..., N_frames, N_points]."""
    origin, rotation = frames.translation, frames.rotation
    offsets = [points[..., None, :, k] - origin[..., :, None, k] for k in range(3)]
    coordinates = []
    for c in range(3):
        coordinate = offsets[0] * rotation[..., 0, c, None]
        for k in (1, 2):
            coordinate = torch.addcmul(coordinate, offsets[k], rotation[..., k, c, None])
        coordinates.append(coordinate)
    return coordinates


def aligned_point_distance(
    frames: tuple[Rigid, Rigid], points: tuple[Tensor, Tensor], *, eps: float
) -> Tensor:
    """Compute distances of points in local frames (Algorithm 28, lines 1-3).

    Args:
        frames: Predicted and true frames, [..., N_frames].
        points: Predicted and true points, [..., N_points, 3] angstrom.

    Returns:
        [..., N_frames, N_points] angstrom.
    """
    return torch.sqrt(squared_distance_in_frames(frames, points) + eps)


def mean_over_pairs(
    error: Tensor, frames_mask: Tensor, points_mask: Tensor, *, eps: float
) -> Tensor:
    """Average error [..., N_frames, N_points] over existing frames and points: [...].

    eps is added to both counts.
    """
    total = (error * points_mask[..., None, :]).sum(-1) * frames_mask
    return total.sum(-1) / (eps + frames_mask.sum(-1)) / (eps + points_mask.sum(-1))


def backbone_fape(outputs: ModelOutputs, batch: FeatureBatch, config: FapeLossConfig) -> Tensor:
    """Compute the FAPE of backbone frames and CA atoms: [batch].

    It is averaged over structure module blocks. use_clamped_fape of a sample is the weight of the
    clamped error; the unclamped error has the rest of the weight.
    """
    predicted = Rigid(quaternion_to_matrix(outputs.sm_frames[..., :4]), outputs.sm_frames[..., 4:])
    true = Rigid.from_matrix4x4(batch.backbone_rigid_tensor[:, None])
    mask = batch.backbone_rigid_mask[:, None]
    distance = aligned_point_distance(
        (predicted, true), (predicted.translation, true.translation), eps=config.eps
    )
    clamped_weight = batch.use_clamped_fape[:, None, None, None]
    clamped = distance.clamp(max=config.clamp_distance_angstrom)
    error = (
        clamped * clamped_weight + distance * (1.0 - clamped_weight)
    ) / config.length_scale_angstrom
    return mean_over_pairs(error, mask, mask, eps=config.eps).mean(-1)


def sidechain_fape(
    outputs: ModelOutputs, batch: FeatureBatch, truth: RenamedTruth, config: FapeLossConfig
) -> Tensor:
    """Compute the clamped FAPE of all rigid groups and atoms of the last block: [batch]."""
    predicted = Rigid.from_matrix4x4(outputs.sm_sidechain_frames[:, -1].flatten(1, 2))
    true = Rigid.from_matrix4x4(truth.rigid_group_frames.flatten(1, 2))
    distance = aligned_point_distance(
        (predicted, true),
        (outputs.sm_positions[:, -1].flatten(1, 2), truth.atom14_positions.flatten(1, 2)),
        eps=config.eps,
    )
    error = distance.clamp(max=config.clamp_distance_angstrom) / config.length_scale_angstrom
    frames_mask = batch.rigidgroups_gt_exists.flatten(1, 2)
    return mean_over_pairs(error, frames_mask, truth.atom14_exists.flatten(1, 2), eps=config.eps)


def fape_loss(
    outputs: ModelOutputs, batch: FeatureBatch, truth: RenamedTruth, config: FapeLossConfig
) -> Tensor:
    """Compute the weighted sum of backbone FAPE and side-chain FAPE: [batch].

    The side-chain FAPE is not computed if its weight is zero.
    """
    backbone = config.backbone_weight * backbone_fape(outputs, batch, config)
    if not config.sidechain_weight:
        return backbone
    return backbone + config.sidechain_weight * sidechain_fape(outputs, batch, truth, config)
