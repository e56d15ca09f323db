"""Prediction of experimentally resolved atoms (AF2 suppl. 1.9.10, eq. 43)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from openfold_opt.losses.config import ExperimentallyResolvedLossConfig
from openfold_opt.losses.reductions import is_resolution_within
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs


def experimentally_resolved_loss(
    outputs: ModelOutputs, batch: FeatureBatch, config: ExperimentallyResolvedLossConfig
) -> Tensor:
    """Compute the binary cross-entropy over the atoms of the residue types: [batch].

    It is 0 for samples outside the resolution range.
    """
    logits, exists = outputs.experimentally_resolved_logits, batch.atom37_atom_exists
    errors = F.binary_cross_entropy_with_logits(logits, batch.all_atom_mask, reduction="none")
    loss = (errors * exists).sum((-1, -2)) / (config.eps + exists.sum((-1, -2)))
    return loss * is_resolution_within(
        batch.resolution, config.min_resolution_angstrom, config.max_resolution_angstrom
    )
