"""The distogram loss."""

import math
from types import SimpleNamespace

import pytest
import torch

from openfold_opt.losses.config import DistogramLossConfig
from openfold_opt.losses.distogram import distogram_loss
from tests.support.loss_inputs import confident_logits


def test_distogram_uses_bins_and_mask():
    beta = torch.tensor([[[0.0, 0, 0], [2.0, 0, 0], [100.0, 0, 0]]])
    batch = SimpleNamespace(pseudo_beta=beta, pseudo_beta_mask=torch.ones(1, 3))
    correct = confident_logits(torch.tensor([[[0, 0, 63], [0, 0, 63], [63, 63, 0]]]), 64)
    outputs = SimpleNamespace(distogram_logits=correct)
    assert float(distogram_loss(outputs, batch, DistogramLossConfig())) == pytest.approx(
        0.0, abs=1e-6
    )
    uniform = SimpleNamespace(distogram_logits=torch.zeros(1, 3, 3, 64))
    assert float(distogram_loss(uniform, batch, DistogramLossConfig())) == pytest.approx(
        math.log(64), rel=1e-6
    )
    batch.pseudo_beta_mask = torch.tensor([[1.0, 1.0, 0.0]])
    wrong_for_masked = SimpleNamespace(
        distogram_logits=confident_logits(torch.zeros(1, 3, 3, dtype=torch.long), 64)
    )
    assert float(distogram_loss(wrong_for_masked, batch, DistogramLossConfig())) == pytest.approx(
        0.0, abs=1e-6
    )
