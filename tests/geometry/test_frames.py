"""Frames from atoms and atoms from torsions agree with golden features and with each other."""

import torch

from openfold_opt.geometry.atoms import atom14_to_atom37, make_atom14_masks, pseudo_beta
from openfold_opt.geometry.frames import (
    atom37_to_frames,
    frames_and_literature_positions_to_atom14,
    pseudo_beta_of_backbone,
    torsion_angles_to_frames,
)
from openfold_opt.geometry.quaternion import quaternion_to_matrix
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.geometry.torsions import atom37_to_torsion_angles
from openfold_opt.protein.residue_constants import chi_angles_mask, sequence_to_aatype
from tests.support.golden_transforms import golden_chains, max_error

LETTERS = "ARNDCQEGHILKMFPSTWYV"


def test_golden_frames(shared):
    for chain, truth in golden_chains(shared).items():
        frames = atom37_to_frames(
            truth["aatype"], truth["all_atom_positions"], truth["all_atom_mask"]
        )
        for name, value in frames.items():
            mask = truth["rigidgroups_gt_exists"] if name.endswith("frames") else None
            assert max_error(value, truth[name], mask) < 1e-3, (chain, name)


def random_residues():
    """Return random frames and torsions for all twenty residue types."""
    generator = torch.Generator().manual_seed(7)
    quaternion = torch.nn.functional.normalize(torch.randn(20, 4, generator=generator), dim=-1)
    backbone = Rigid(quaternion_to_matrix(quaternion), torch.randn(20, 3, generator=generator) * 20)
    angles = torch.nn.functional.normalize(torch.randn(20, 7, 2, generator=generator), dim=-1)
    return torch.from_numpy(sequence_to_aatype(LETTERS)), backbone, angles


def test_torsions_are_recovered_from_atoms():
    aatype, backbone, angles = random_residues()
    frames = torsion_angles_to_frames(backbone, angles, aatype)
    masks = make_atom14_masks(aatype)
    atom14 = frames_and_literature_positions_to_atom14(frames, aatype)
    atom37 = atom14_to_atom37(atom14, masks["residx_atom37_to_atom14"], masks["atom37_atom_exists"])
    measured, _, _ = atom37_to_torsion_angles(aatype, atom37, masks["atom37_atom_exists"])
    chi = torch.from_numpy(chi_angles_mask[:20].copy())[..., None]
    # Peptide planes of idealized residues deviate from planarity by about a degree, which limits
    # the accuracy of psi.
    assert ((measured[:, 2] - angles[:, 2]).abs()).max() < 0.05
    assert ((measured[:, 3:] - angles[:, 3:]).abs() * chi).max() < 0.05
    rebuilt = atom37_to_frames(aatype, atom37, masks["atom37_atom_exists"])["rigidgroups_gt_frames"]
    torch.testing.assert_close(rebuilt[:, 0, :3, :3], backbone.rotation, atol=2e-2, rtol=0)
    torch.testing.assert_close(rebuilt[:, 0, :3, 3], backbone.translation, atol=1e-4, rtol=0)


def test_pseudo_beta_does_not_depend_on_torsions():
    aatype, backbone, angles = random_residues()
    # The last residue has an unknown type, which has no atoms.
    aatype[-1] = 20
    frames = torsion_angles_to_frames(backbone, angles, aatype)
    masks = make_atom14_masks(aatype)
    atom14 = frames_and_literature_positions_to_atom14(frames, aatype)
    exists = masks["atom37_atom_exists"]
    atom37 = atom14_to_atom37(atom14, masks["residx_atom37_to_atom14"], exists)
    found = pseudo_beta_of_backbone(backbone, aatype, exists)
    expected, mask = pseudo_beta(aatype, atom37, exists)
    assert torch.equal(found, expected)
    assert mask.tolist() == [1.0] * 19 + [0.0]


def test_missing_atoms_give_finite_masked_frames():
    aatype = torch.from_numpy(sequence_to_aatype("RX"))
    frames = atom37_to_frames(aatype, torch.zeros(2, 37, 3), torch.zeros(2, 37))
    assert all(torch.isfinite(value).all() for value in frames.values())
    assert frames["rigidgroups_gt_exists"].sum() == 0
