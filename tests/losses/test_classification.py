"""Cross-entropy losses: distogram, masked MSA, pLDDT, resolved atoms and aligned error."""

import math
from types import SimpleNamespace

import pytest
import torch

from openfold_opt.losses.config import (
    DistogramLossConfig,
    ExperimentallyResolvedLossConfig,
    MaskedMSALossConfig,
    PLDDTLossConfig,
    TMLossConfig,
)
from openfold_opt.losses.distogram import distogram_loss
from openfold_opt.losses.experimentally_resolved import experimentally_resolved_loss
from openfold_opt.losses.masked_msa import masked_msa_loss
from openfold_opt.losses.plddt import plddt_loss
from openfold_opt.losses.tm import tm_loss

RESOLUTIONS = torch.tensor([2.0, 5.0, float("nan")])
"""Resolutions within the range, above the range, and unknown."""


def confident_logits(index, num_classes):
    """Return logits whose softmax is one-hot at index."""
    return torch.nn.functional.one_hot(index, num_classes).float() * 100.0


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


def test_experimentally_resolved_ignores_atoms_that_do_not_exist():
    exists = torch.zeros(3, 2, 37)
    exists[:, :, :4] = 1.0
    batch = SimpleNamespace(atom37_atom_exists=exists, all_atom_mask=exists, resolution=RESOLUTIONS)
    outputs = SimpleNamespace(experimentally_resolved_logits=torch.zeros(3, 2, 37))
    loss = experimentally_resolved_loss(outputs, batch, ExperimentallyResolvedLossConfig())
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0, 0.0]))


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
