"""Side-chain torsion angles (AF2 suppl. 1.9.1, Algorithm 27)."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.geometry.residue_tables import lookup
from openfold_opt.losses.config import SupervisedChiLossConfig
from openfold_opt.losses.reductions import masked_mean
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.protein.residue_constants import chi_pi_periodic


def supervised_chi_loss(
    outputs: ModelOutputs, batch: FeatureBatch, config: SupervisedChiLossConfig
) -> Tensor:
    """Compute the torsion angle loss and the angle norm loss: weighted sum, [batch].

    The torsion angle loss is the squared error of sine and cosine; for pi-periodic angles it is the
    minimum over both values of the true angle. The angle norm loss is the deviation of the
    unnormalized angle vectors from unit length. Both are averaged over structure module blocks,
    residues and angles.
    """
    predicted = outputs.sm_angles[..., 3:, :]  # chi1..chi4; the first three are omega, phi, psi.
    true = batch.chi_angles_sin_cos[:, None]
    sign = 1.0 - 2.0 * lookup(chi_pi_periodic, batch.aatype)[:, None, ..., None]
    error = torch.minimum(
        ((true - predicted) ** 2).sum(-1),
        ((sign * true - predicted) ** 2).sum(-1),
    )
    chi = masked_mean(error, batch.chi_mask[:, None], dims=(-1, -2, -3))
    norm = torch.sqrt((outputs.sm_unnormalized_angles**2).sum(-1) + config.eps)
    norm_error = masked_mean(
        (norm - 1.0).abs(), batch.seq_mask[:, None, :, None], dims=(-1, -2, -3)
    )
    return config.chi_weight * chi + config.angle_norm_weight * norm_error
