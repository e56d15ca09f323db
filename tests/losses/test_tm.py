"""The loss of the predicted aligned error."""

import math
from types import SimpleNamespace

import torch

from openfold_opt.losses.config import TMLossConfig
from openfold_opt.losses.tm import tm_loss
from tests.support.loss_inputs import RESOLUTIONS, confident_logits


def test_tm_loss_uses_bins_of_the_aligned_error():
    identity = torch.eye(4).repeat(3, 2, 1, 1)
    affine = torch.zeros(3, 2, 7)
    affine[..., 0] = 1.0
    # The second residue is displaced by 100 angstrom relative to the first, and vice versa.
    affine[:, 1, 4] = 100.0
    batch = SimpleNamespace(
        backbone_rigid_tensor=identity, backbone_rigid_mask=torch.ones(3, 2), resolution=RESOLUTIONS
    )
    true_bins = torch.tensor([[0, 63], [63, 0]]).repeat(3, 1, 1)
    outputs = SimpleNamespace(tm_logits=confident_logits(true_bins, 64), final_affine_tensor=affine)
    torch.testing.assert_close(
        tm_loss(outputs, batch, TMLossConfig()), torch.zeros(3), atol=1e-6, rtol=0
    )
    outputs.tm_logits = torch.zeros(3, 2, 2, 64)
    torch.testing.assert_close(
        tm_loss(outputs, batch, TMLossConfig()), torch.tensor([math.log(64), 0.0, 0.0])
    )
