"""Distogram prediction (AF2 suppl. 1.9.8, eq. 41)."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.losses.config import DistogramLossConfig
from openfold_opt.losses.reductions import cross_entropy
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs


def distogram_loss(
    outputs: ModelOutputs, batch: FeatureBatch, config: DistogramLossConfig
) -> Tensor:
    """Compute the cross-entropy of binned pseudo-beta distances: [batch].

    It is averaged over resolved pairs.
    """
    logits = outputs.distogram_logits
    boundaries = torch.linspace(
        config.min_bin_angstrom, config.max_bin_angstrom, logits.shape[-1] - 1, device=logits.device
    )
    offset = batch.pseudo_beta[:, :, None] - batch.pseudo_beta[:, None]
    true_bin = torch.bucketize((offset * offset).sum(-1), boundaries**2)
    pair_mask = batch.pseudo_beta_mask[:, :, None] * batch.pseudo_beta_mask[:, None]
    errors = cross_entropy(logits, true_bin) * pair_mask
    return errors.sum((-1, -2)) / (config.eps + pair_mask.sum((-1, -2)))
