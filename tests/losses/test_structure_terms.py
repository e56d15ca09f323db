"""Losses of atoms and torsions: violations, chi angles, renaming of ambiguous atoms."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_prep.synthesize.build import build_atoms
from openfold_opt.geometry.atoms import make_atom14_masks, make_atom14_positions
from openfold_opt.geometry.frames import atom37_to_frames
from openfold_opt.geometry.torsions import atom37_to_torsion_angles
from openfold_opt.losses.config import SupervisedChiLossConfig, ViolationLossConfig
from openfold_opt.losses.renaming import rename_ground_truth
from openfold_opt.losses.supervised_chi import supervised_chi_loss
from openfold_opt.losses.violation import (
    between_residue_clashes,
    peptide_bond_loss,
    violation_loss,
    within_residue_violations,
)
from openfold_opt.protein.residue_constants import sequence_to_aatype

SEQUENCE = "AEDKLFYRQMGWVTE"
CONFIG = ViolationLossConfig()


@pytest.fixture
def truth():
    """An ideal helix with a turn, as a batch of one sample."""
    aatype = torch.from_numpy(sequence_to_aatype(SEQUENCE))[None]
    positions, mask = (
        torch.from_numpy(np.asarray(array, np.float32))[None] for array in build_atoms(SEQUENCE)
    )
    sin_cos, _, torsion_mask = atom37_to_torsion_angles(aatype, positions, mask)
    features = (
        make_atom14_masks(aatype)
        | make_atom14_positions(aatype, positions, mask)
        | atom37_to_frames(aatype, positions, mask)
    )
    return SimpleNamespace(
        aatype=aatype,
        residue_index=torch.arange(len(SEQUENCE))[None],
        seq_mask=torch.ones(1, len(SEQUENCE)),
        chi_angles_sin_cos=sin_cos[:, :, 3:],
        chi_mask=torsion_mask[:, :, 3:],
        sin_cos=sin_cos,
        **features,
    )


def test_ideal_backbone_has_no_violations(truth):
    positions = truth.atom14_gt_positions
    assert float(peptide_bond_loss(positions, truth, CONFIG)) == pytest.approx(0.0, abs=1e-5)
    assert float(within_residue_violations(positions, truth, CONFIG)) == pytest.approx(
        0.0, abs=1e-3
    )


def test_broken_peptide_bond_is_a_violation_except_at_a_gap(truth):
    positions = truth.atom14_gt_positions.clone()
    positions[:, 8:] += 5.0
    assert float(peptide_bond_loss(positions, truth, CONFIG)) > 0.1
    truth.residue_index = truth.residue_index + (torch.arange(len(SEQUENCE)) >= 8) * 10
    assert float(peptide_bond_loss(positions, truth, CONFIG)) == pytest.approx(0.0, abs=1e-5)


def test_coincident_residues_clash_and_have_finite_gradients(truth):
    positions = torch.zeros_like(truth.atom14_gt_positions).requires_grad_()
    outputs = SimpleNamespace(sm_positions=positions[:, None])
    assert float(between_residue_clashes(positions, truth, CONFIG).detach()) > 100.0
    violation_loss(outputs, truth, CONFIG).sum().backward()
    assert torch.isfinite(positions.grad).all()


def chi_outputs(sin_cos, scale=1.0):
    angles = sin_cos[:, None]
    return SimpleNamespace(sm_angles=angles, sm_unnormalized_angles=angles * scale)


def test_chi_loss_of_the_truth_is_zero_also_for_pi_periodic_rotations(truth):
    config = SupervisedChiLossConfig(angle_norm_weight=0.0)
    predicted = truth.sin_cos.clone()
    assert float(supervised_chi_loss(chi_outputs(predicted), truth, config)) == pytest.approx(
        0.0, abs=1e-6
    )
    aspartate = SEQUENCE.index("D")
    predicted[:, aspartate, 4] *= -1.0
    assert float(supervised_chi_loss(chi_outputs(predicted), truth, config)) == pytest.approx(
        0.0, abs=1e-6
    )
    # chi1 is not periodic in pi.
    predicted[:, aspartate, 3] *= -1.0
    num_angles = float(truth.chi_mask.sum())
    assert float(supervised_chi_loss(chi_outputs(predicted), truth, config)) == pytest.approx(
        0.5 * 4.0 / num_angles, rel=1e-3
    )


def test_angle_norm_loss_of_unnormalized_vectors(truth):
    config = SupervisedChiLossConfig(chi_weight=0.0)
    unit = torch.nn.functional.normalize(torch.ones(1, len(SEQUENCE), 7, 2), dim=-1)
    assert float(supervised_chi_loss(chi_outputs(unit, 3.0), truth, config)) == pytest.approx(
        0.01 * 2.0, rel=1e-3
    )


def test_ambiguous_atoms_are_renamed_to_fit_the_prediction(truth):
    kept = rename_ground_truth(truth.atom14_gt_positions, truth)
    torch.testing.assert_close(kept.atom14_positions, truth.atom14_gt_positions)
    renamed = rename_ground_truth(truth.atom14_alt_gt_positions, truth)
    torch.testing.assert_close(renamed.atom14_positions, truth.atom14_alt_gt_positions)
    torch.testing.assert_close(renamed.rigid_group_frames, truth.rigidgroups_alt_gt_frames)
    assert not torch.equal(kept.atom14_positions, renamed.atom14_positions)
