"""Renaming of ambiguous ground truth atoms (AF2 suppl. 1.8.5, Algorithm 26)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.losses.reductions import pairwise_distance
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.residue_constants import restype_atom14_is_ambiguous

_EPS = 1e-10
_AMBIGUOUS_SLOTS = slice(
    int(restype_atom14_is_ambiguous.any(axis=0).argmax()),
    14 - int(restype_atom14_is_ambiguous.any(axis=0)[::-1].argmax()),
)
"""Range of atom14 slots that contains the ambiguous atoms of all residue types."""


@dataclass(frozen=True, eq=False)
class RenamedTruth:
    """The ground truth with the atom names that fit the prediction better."""

    atom14_positions: Tensor
    """[batch, N_res, 14, 3] angstrom"""
    atom14_exists: Tensor
    """[batch, N_res, 14]"""
    rigid_group_frames: Tensor
    """[batch, N_res, 8, 4, 4]"""


@torch.no_grad()
def rename_ground_truth(predicted: Tensor, batch: FeatureBatch) -> RenamedTruth:
    """Choose the atom names of each residue that fit the prediction better.

    The criterion is the error of the distances from the ambiguous atoms of the residue to all
    unambiguous atoms. No gradient flows through the choice.

    Args:
        predicted: [batch, N_res, 14, 3] angstrom, atoms of the last structure module block.
    """
    exists, ambiguous = batch.atom14_gt_exists, batch.atom14_atom_is_ambiguous
    ambiguous_mask = (exists * ambiguous)[..., _AMBIGUOUS_SLOTS].flatten(1)
    unambiguous_mask = (exists * (1.0 - ambiguous)).flatten(1)
    pair_mask = ambiguous_mask[:, :, None] * unambiguous_mask[:, None, :]

    def distances(positions: Tensor) -> Tensor:
        return pairwise_distance(
            positions[:, :, _AMBIGUOUS_SLOTS].flatten(1, 2), positions.flatten(1, 2), eps=_EPS
        )

    predicted_distance = distances(predicted)

    def distance_error(positions: Tensor) -> Tensor:
        difference = predicted_distance - distances(positions)
        per_atom = (pair_mask * torch.sqrt(difference * difference + _EPS)).sum(-1)
        return per_atom.unflatten(1, (predicted.shape[1], -1)).sum(-1)

    use_alternative = distance_error(batch.atom14_alt_gt_positions) < distance_error(
        batch.atom14_gt_positions
    )
    return RenamedTruth(
        torch.where(
            use_alternative[..., None, None],
            batch.atom14_alt_gt_positions,
            batch.atom14_gt_positions,
        ),
        torch.where(use_alternative[..., None], batch.atom14_alt_gt_exists, batch.atom14_gt_exists),
        torch.where(
            use_alternative[..., None, None, None],
            batch.rigidgroups_alt_gt_frames,
            batch.rigidgroups_gt_frames,
        ),
    )
