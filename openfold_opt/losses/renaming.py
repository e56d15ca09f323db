"""Names of exchangeable atoms, chosen so that the truth fits the prediction best (AF2 suppl. 1.8.5, Algorithm 26)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.losses.reductions import pairwise_distance
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.residue_constants import restype_atom14_is_ambiguous

_EPS = 1e-10
_SLOTS = slice(
    int(restype_atom14_is_ambiguous.any(axis=0).argmax()),
    14 - int(restype_atom14_is_ambiguous.any(axis=0)[::-1].argmax()),
)
"""The atom14 slots among which all exchangeable atoms lie, whatever the residue type."""


@dataclass(frozen=True, eq=False)
class RenamedTruth:
    """The ground truth under the better naming."""

    atom14_positions: Tensor
    """[batch, N_res, 14, 3] angstrom"""
    atom14_exists: Tensor
    """[batch, N_res, 14]"""
    rigid_group_frames: Tensor
    """[batch, N_res, 8, 4, 4]"""


@torch.no_grad()
def rename_ground_truth(predicted: Tensor, batch: FeatureBatch) -> RenamedTruth:
    """Residue by residue, take the naming whose distances to all unambiguous atoms are nearer to the prediction's.

    predicted: [batch, N_res, 14, 3] angstrom, the last block's atoms. No gradient flows through the choice.
    """
    exists, ambiguous = batch.atom14_gt_exists, batch.atom14_atom_is_ambiguous
    moving = (exists * ambiguous)[..., _SLOTS].flatten(1)
    fixed = (exists * (1.0 - ambiguous)).flatten(1)
    pair_mask = moving[:, :, None] * fixed[:, None, :]

    def distances(positions: Tensor) -> Tensor:
        return pairwise_distance(
            positions[:, :, _SLOTS].flatten(1, 2), positions.flatten(1, 2), eps=_EPS
        )

    predicted_distance = distances(predicted)

    def misfit(positions: Tensor) -> Tensor:
        difference = predicted_distance - distances(positions)
        per_atom = (pair_mask * torch.sqrt(difference * difference + _EPS)).sum(-1)
        return per_atom.unflatten(1, (predicted.shape[1], -1)).sum(-1)

    is_better = misfit(batch.atom14_alt_gt_positions) < misfit(batch.atom14_gt_positions)
    return RenamedTruth(
        torch.where(
            is_better[..., None, None], batch.atom14_alt_gt_positions, batch.atom14_gt_positions
        ),
        torch.where(is_better[..., None], batch.atom14_alt_gt_exists, batch.atom14_gt_exists),
        torch.where(
            is_better[..., None, None, None],
            batch.rigidgroups_alt_gt_frames,
            batch.rigidgroups_gt_frames,
        ),
    )
