"""Masked MSA prediction (AF2 suppl. 1.9.9, eq. 42)."""

from __future__ import annotations

from torch import Tensor

from openfold_opt.losses.config import MaskedMSALossConfig
from openfold_opt.losses.reductions import cross_entropy
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs


def masked_msa_loss(
    outputs: ModelOutputs, batch: FeatureBatch, config: MaskedMSALossConfig
) -> Tensor:
    """Compute the mean cross-entropy of the 23 classes over the masked positions: [batch]."""
    errors = cross_entropy(outputs.masked_msa_logits, batch.true_msa) * batch.bert_mask
    # The benchmark adds eps to half the count. This matters only if nothing is masked.
    return 0.5 * errors.sum((-1, -2)) / (config.eps + 0.5 * batch.bert_mask.sum((-1, -2)))
