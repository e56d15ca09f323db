"""Predicted lDDT-Ca (pLDDT), the confidence of the model (AF2 suppl. 1.9.6, Algorithm 29)."""

from __future__ import annotations

from torch import Tensor

from openfold_opt.losses.config import PLDDTLossConfig
from openfold_opt.losses.lddt import lddt
from openfold_opt.losses.reductions import cross_entropy, is_resolution_within
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.protein.residue_constants import atom_order

_CA = atom_order["CA"]


def plddt_loss(outputs: ModelOutputs, batch: FeatureBatch, config: PLDDTLossConfig) -> Tensor:
    """Compute the cross-entropy of the binned lDDT-Ca, averaged over resolved residues: [batch].

    It is 0 for samples outside the resolution range. No gradient flows through the lDDT-Ca target.
    """
    logits, mask = outputs.lddt_logits, batch.all_atom_mask[..., _CA]
    score = lddt(
        outputs.final_atom_positions[..., _CA, :].detach(),
        batch.all_atom_positions[..., _CA, :],
        mask,
        cutoff_angstrom=config.cutoff_angstrom,
        eps=config.eps,
    )
    num_bins = logits.shape[-1]
    true_bin = (score * num_bins).floor().long().clamp(max=num_bins - 1)
    loss = (cross_entropy(logits, true_bin) * mask).sum(-1) / (config.eps + mask.sum(-1))
    return loss * is_resolution_within(
        batch.resolution, config.min_resolution_angstrom, config.max_resolution_angstrom
    )
