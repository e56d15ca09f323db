"""The masked MSA loss."""

from types import SimpleNamespace

import pytest
import torch

from openfold_opt.losses.config import MaskedMSALossConfig
from openfold_opt.losses.masked_msa import masked_msa_loss
from tests.support.loss_inputs import confident_logits


def test_masked_msa_uses_only_masked_positions():
    true = torch.tensor([[[3, 21, 20]]])
    outputs = SimpleNamespace(masked_msa_logits=confident_logits(torch.tensor([[[3, 0, 0]]]), 23))
    batch = SimpleNamespace(true_msa=true, bert_mask=torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert float(masked_msa_loss(outputs, batch, MaskedMSALossConfig())) == pytest.approx(
        0.0, abs=1e-6
    )
    batch.bert_mask = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert float(masked_msa_loss(outputs, batch, MaskedMSALossConfig())) == pytest.approx(
        50.0, rel=1e-5
    )
    batch.bert_mask = torch.zeros(1, 1, 3)
    assert float(masked_msa_loss(outputs, batch, MaskedMSALossConfig())) == 0.0
