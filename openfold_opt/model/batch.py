"""FeatureBatch: the features of a batch of samples, one tensor field per feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from openfold_opt.protein.features import FEATURES, check_features


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureBatch:
    """Features of a batch; openfold_opt.protein.features defines shapes, dtypes and units.

    A pass is a recycling iteration or the last iteration, the one with gradient. Features that
    differ between passes (MSA) are [batch, num_passes, ...], all others [batch, ...]. After
    `at_pass` all are [batch, ...].
    """

    aatype: Tensor
    residue_index: Tensor
    seq_length: Tensor
    seq_mask: Tensor
    target_feat: Tensor
    resolution: Tensor
    use_clamped_fape: Tensor
    all_atom_positions: Tensor
    all_atom_mask: Tensor
    atom37_atom_exists: Tensor
    atom14_atom_exists: Tensor
    residx_atom14_to_atom37: Tensor
    residx_atom37_to_atom14: Tensor
    atom14_gt_positions: Tensor
    atom14_gt_exists: Tensor
    atom14_alt_gt_positions: Tensor
    atom14_alt_gt_exists: Tensor
    atom14_atom_is_ambiguous: Tensor
    rigidgroups_gt_frames: Tensor
    rigidgroups_alt_gt_frames: Tensor
    rigidgroups_gt_exists: Tensor
    backbone_rigid_tensor: Tensor
    backbone_rigid_mask: Tensor
    pseudo_beta: Tensor
    pseudo_beta_mask: Tensor
    chi_angles_sin_cos: Tensor
    chi_mask: Tensor
    template_mask: Tensor
    template_aatype: Tensor
    template_all_atom_positions: Tensor
    template_all_atom_mask: Tensor
    template_pseudo_beta: Tensor
    template_pseudo_beta_mask: Tensor
    template_torsion_angles_sin_cos: Tensor
    template_alt_torsion_angles_sin_cos: Tensor
    template_torsion_angles_mask: Tensor
    msa_feat: Tensor
    msa_mask: Tensor
    msa_row_mask: Tensor
    true_msa: Tensor
    bert_mask: Tensor
    extra_msa: Tensor
    extra_msa_mask: Tensor
    extra_has_deletion: Tensor
    extra_deletion_value: Tensor

    @classmethod
    def from_features(cls, features: Mapping[str, Tensor]) -> FeatureBatch:
        """Build a batch from batched features, name -> tensor.

        Raises:
            ValueError: a feature is missing or unknown, or has a wrong shape or dtype.
        """
        check_features(features, batched=True)
        return cls(**{name: torch.as_tensor(features[name]) for name in FEATURES})

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return self.aatype.shape[0]

    @property
    def num_passes(self) -> int:
        """Number of slices of the per-pass features: recycling iterations plus the last pass."""
        if self.msa_mask.ndim != 4:
            raise ValueError(
                "the batch was already cut to one pass by at_pass and has no dim of passes"
            )
        return self.msa_mask.shape[1]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> FeatureBatch:
        """Return the batch on another device."""
        return FeatureBatch(
            **{
                item.name: getattr(self, item.name).to(device, non_blocking=non_blocking)
                for item in fields(self)
            }
        )

    def at_pass(self, pass_index: int) -> FeatureBatch:
        """Return the features of one pass: the dim of passes is removed from per-pass features.

        Raises:
            ValueError: the batch has no such pass.
        """
        if not 0 <= pass_index < self.num_passes:
            raise ValueError(
                f"pass {pass_index} requested, but the batch has {self.num_passes} slices of "
                "per-pass features; lower num_recycling_iterations or make samples with more passes"
            )
        return replace(
            self,
            **{
                name: getattr(self, name)[:, pass_index]
                for name, spec in FEATURES.items()
                if spec.per_pass
            },
        )
