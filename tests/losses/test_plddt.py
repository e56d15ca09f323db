"""The pLDDT loss."""

import math
from types import SimpleNamespace

import torch

from openfold_opt.losses.config import PLDDTLossConfig
from openfold_opt.losses.plddt import plddt_loss
from tests.support.loss_inputs import RESOLUTIONS, confident_logits


def test_plddt_target_of_a_perfect_structure_is_the_last_bin():
    positions = torch.randn(3, 5, 37, 3, generator=torch.Generator().manual_seed(0)) * 5
    batch = SimpleNamespace(
        all_atom_positions=positions, all_atom_mask=torch.ones(3, 5, 37), resolution=RESOLUTIONS
    )
    outputs = SimpleNamespace(
        final_atom_positions=positions, lddt_logits=confident_logits(torch.full((3, 5), 49), 50)
    )
    torch.testing.assert_close(
        plddt_loss(outputs, batch, PLDDTLossConfig()), torch.zeros(3), atol=1e-6, rtol=0
    )
    outputs.lddt_logits = torch.zeros(3, 5, 50)
    expected = torch.tensor([math.log(50), 0.0, 0.0])
    torch.testing.assert_close(plddt_loss(outputs, batch, PLDDTLossConfig()), expected)
