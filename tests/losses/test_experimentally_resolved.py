"""The loss of the prediction whether an atom is resolved."""

import math
from types import SimpleNamespace

import torch

from openfold_opt.losses.config import ExperimentallyResolvedLossConfig
from openfold_opt.losses.experimentally_resolved import experimentally_resolved_loss
from tests.support.loss_inputs import RESOLUTIONS


def test_experimentally_resolved_ignores_atoms_that_do_not_exist():
    exists = torch.zeros(3, 2, 37)
    exists[:, :, :4] = 1.0
    batch = SimpleNamespace(atom37_atom_exists=exists, all_atom_mask=exists, resolution=RESOLUTIONS)
    outputs = SimpleNamespace(experimentally_resolved_logits=torch.zeros(3, 2, 37))
    loss = experimentally_resolved_loss(outputs, batch, ExperimentallyResolvedLossConfig())
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0, 0.0]))
