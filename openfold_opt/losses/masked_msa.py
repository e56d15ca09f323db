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
    """Cross-entropy of the 23 classes, mean over the positions that were chosen for masking: [batch]."""
    errors = cross_entropy(outputs.masked_msa_logits, batch.true_msa) * batch.bert_mask
    # the benchmark adds eps to half the count: kept, it matters only where nothing is masked
    return 0.5 * errors.sum((-1, -2)) / (config.eps + 0.5 * batch.bert_mask.sum((-1, -2)))
