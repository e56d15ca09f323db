"""Predicted aligned error, used for the predicted TM-score (AF2 suppl. 1.9.7)."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.losses.config import TMLossConfig
from openfold_opt.losses.fape import squared_distance_in_frames
from openfold_opt.losses.reductions import cross_entropy, is_resolution_within
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs


def tm_loss(outputs: ModelOutputs, batch: FeatureBatch, config: TMLossConfig) -> Tensor:
    """Compute the cross-entropy of the binned error of CA j in backbone frame i: [batch].

    It is averaged over resolved pairs (i, j), and 0 for samples outside the resolution range. No
    gradient flows through the error target.
    """
    logits = outputs.tm_logits
    affine = outputs.final_affine_tensor.detach()
    predicted = Rigid(quaternion_to_matrix(affine[..., :4]), affine[..., 4:])
    true = Rigid.from_matrix4x4(batch.backbone_rigid_tensor)
    square = squared_distance_in_frames(
        (predicted, true), (predicted.translation, true.translation)
    )
    boundaries = torch.linspace(
        0.0, config.max_bin_angstrom, logits.shape[-1] - 1, device=logits.device
    )
    true_bin = torch.bucketize(square, boundaries**2)
    pair_mask = batch.backbone_rigid_mask[:, :, None] * batch.backbone_rigid_mask[:, None]
    errors = cross_entropy(logits, true_bin) * pair_mask
    # The benchmark adds eps to half the count. This matters only if nothing is resolved.
    loss = 0.5 * errors.sum((-1, -2)) / (config.eps + 0.5 * pair_mask.sum((-1, -2)))
    return loss * is_resolution_within(
        batch.resolution, config.min_resolution_angstrom, config.max_resolution_angstrom
    )
