"""Torsion angles agree with golden features and points with known angles."""

import math

import pytest
import torch

from openfold_opt.geometry.torsions import atom37_to_torsion_angles
from openfold_opt.protein.residue_constants import atom_order, chi_angles_atoms, sequence_to_aatype
from tests.support.golden_transforms import golden_chains, max_error

OMEGA, PHI, PSI, CHI_1 = range(4)


def test_golden_torsions(shared):
    for chain, truth in golden_chains(shared).items():
        got = atom37_to_torsion_angles(
            truth["aatype"], truth["all_atom_positions"], truth["all_atom_mask"]
        )
        mask = truth["torsion_angles_mask"]
        assert max_error(got[2], mask) == 0.0, chain
        assert max_error(got[0], truth["torsion_angles_sin_cos"], mask) < 1e-3, chain
        assert max_error(got[1], truth["alt_torsion_angles_sin_cos"], mask) < 1e-3, chain


def four_points(angle):
    """Return points a, b, c, d whose torsion about b-c is `angle`.

    Seen from b to c, d is rotated clockwise from a by this angle.
    """
    a, b, c = torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3), torch.tensor([1.5, 0.0, 0.0])
    return a, b, c, torch.tensor([2.0, math.cos(angle), math.sin(angle)])


def with_atoms(points, atoms, *, aatype):
    """Return positions and mask [N_res, 37] with one atom (residue, name) at each point."""
    positions, mask = torch.zeros(len(aatype), 37, 3), torch.zeros(len(aatype), 37)
    for point, (residue, name) in zip(points, atoms, strict=True):
        positions[residue, atom_order[name]] = point
        mask[residue, atom_order[name]] = 1.0
    return positions, mask


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.9, -2.5, math.pi])
@pytest.mark.parametrize(
    "torsion, atoms",
    [
        (OMEGA, ((0, "CA"), (0, "C"), (1, "N"), (1, "CA"))),
        (PHI, ((0, "C"), (1, "N"), (1, "CA"), (1, "C"))),
        (CHI_1, tuple((1, name) for name in chi_angles_atoms["LEU"][0])),
        (CHI_1 + 1, tuple((1, name) for name in chi_angles_atoms["LEU"][1])),
    ],
)
def test_known_angle_is_recovered(angle, torsion, atoms):
    aatype = torch.from_numpy(sequence_to_aatype("GL"))
    sin_cos, alternative, mask = atom37_to_torsion_angles(
        aatype, *with_atoms(four_points(angle), atoms, aatype=aatype)
    )
    expected = torch.tensor([math.sin(angle), math.cos(angle)])
    torch.testing.assert_close(sin_cos[1, torsion], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(alternative[1, torsion], expected, atol=1e-4, rtol=0)
    assert mask.nonzero().tolist() == [[1, torsion]]


def test_psi_refers_to_the_next_nitrogen():
    # O is opposite to the next N, so a torsion of 0.4 with O is a psi of 0.4 + pi.
    aatype = torch.from_numpy(sequence_to_aatype("G"))
    atoms = ((0, "N"), (0, "CA"), (0, "C"), (0, "O"))
    sin_cos, _, mask = atom37_to_torsion_angles(
        aatype, *with_atoms(four_points(0.4), atoms, aatype=aatype)
    )
    expected = torch.tensor([math.sin(0.4 + math.pi), math.cos(0.4 + math.pi)])
    torch.testing.assert_close(sin_cos[0, PSI], expected, atol=1e-4, rtol=0)
    assert mask.nonzero().tolist() == [[0, PSI]]


def test_pi_periodic_angle_has_an_alternative():
    aatype = torch.from_numpy(sequence_to_aatype("D"))
    atoms = tuple((0, name) for name in chi_angles_atoms["ASP"][1])
    sin_cos, alternative, _ = atom37_to_torsion_angles(
        aatype, *with_atoms(four_points(0.7), atoms, aatype=aatype)
    )
    torch.testing.assert_close(alternative[0, CHI_1 + 1], -sin_cos[0, CHI_1 + 1])


def test_unknown_residues_and_gaps_have_no_side_chain():
    aatype = torch.tensor([20, 21])
    positions = torch.randn(2, 37, 3, generator=torch.Generator().manual_seed(0))
    sin_cos, _, mask = atom37_to_torsion_angles(aatype, positions, torch.ones(2, 37))
    assert torch.isfinite(sin_cos).all()
    assert mask.tolist() == [[0, 0, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]]
