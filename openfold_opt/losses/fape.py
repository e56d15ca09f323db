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


def points_in_frames(frames: Rigid, points: Tensor) -> Tensor:
    """Every point in every frame: frames [..., N_frames], points [..., N_points, 3] -> [..., N_frames, N_points, 3].

    Three multiply-adds of the result's size; a batched 3 x 3 product would hold nine.
    """
    offset = points[..., None, :, :] - frames.translation[..., :, None, :]
    columns = frames.rotation[..., :, None, :, :]
    return sum(offset[..., k : k + 1] * columns[..., k, :] for k in range(3))


def aligned_point_distance(
    frames: tuple[Rigid, Rigid], points: tuple[Tensor, Tensor], *, eps: float
) -> Tensor:
    """Algorithm 28, lines 1-3, for (predicted, true) frames and points: [..., N_frames, N_points] angstrom."""
    difference = points_in_frames(frames[0], points[0]) - points_in_frames(frames[1], points[1])
    return torch.sqrt((difference * difference).sum(-1) + eps)


def mean_over_pairs(error: Tensor, frames_mask: Tensor, points_mask: Tensor, *, eps: float) -> Tensor:
    """Mean over existing frames and points: error [..., N_frames, N_points] -> [...]."""
    total = (error * points_mask[..., None, :]).sum(-1) * frames_mask
    return total.sum(-1) / (eps + frames_mask.sum(-1)) / (eps + points_mask.sum(-1))


def backbone_fape(outputs: ModelOutputs, batch: FeatureBatch, config: FapeLossConfig) -> Tensor:
    """Backbone frames and CA atoms, mean over the blocks of the structure module: [batch].

    use_clamped_fape of a sample mixes the clamped and the unclamped error.
    """
    predicted = Rigid(quaternion_to_matrix(outputs.sm_frames[..., :4]), outputs.sm_frames[..., 4:])
    true = Rigid.from_matrix4x4(batch.backbone_rigid_tensor[:, None])
    mask = batch.backbone_rigid_mask[:, None]
    distance = aligned_point_distance(
        (predicted, true), (predicted.translation, true.translation), eps=config.eps
    )
    clamped_share = batch.use_clamped_fape[:, None, None, None]
    clamped = distance.clamp(max=config.clamp_distance_angstrom)
    error = (clamped * clamped_share + distance * (1.0 - clamped_share)) / config.length_scale_angstrom
    return mean_over_pairs(error, mask, mask, eps=config.eps).mean(-1)


def sidechain_fape(outputs: ModelOutputs, batch: FeatureBatch, truth: RenamedTruth, config: FapeLossConfig) -> Tensor:
    """All rigid groups and all atoms of the last block, always clamped: [batch]."""
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


def fape_loss(outputs: ModelOutputs, batch: FeatureBatch, truth: RenamedTruth, config: FapeLossConfig) -> Tensor:
    """Weighted sum of backbone and side-chain error: [batch]."""
    backbone = backbone_fape(outputs, batch, config)
    return config.backbone_weight * backbone + config.sidechain_weight * sidechain_fape(outputs, batch, truth, config)
