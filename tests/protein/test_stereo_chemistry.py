"""Bonds, angles and distance bounds are consistent with each other and with known chemistry."""

import math

import numpy as np
import pytest

from openfold_opt.protein.residue_constants import (
    residue_atoms,
    restype_1to3,
    restype_atom14_mask,
    restype_atom14_rigid_group_positions,
    restype_order,
)
from openfold_opt.protein.stereo_chemistry import (
    Bond,
    BondAngle,
    angle_as_bond,
    between_residue_cos_angle_c_n_ca,
    between_residue_cos_angle_ca_c_n,
    bonds_and_angles,
    make_atom14_dists_bounds,
    restype_atom14_van_der_waals_radius,
)


def test_bonds_and_angles_of_glycine():
    bonds, angles = bonds_and_angles("GLY")
    assert {(bond.atom_1, bond.atom_2) for bond in bonds} == {("N", "CA"), ("CA", "C"), ("C", "O")}
    assert all(np.pi / 2 < angle.angle < np.pi for angle in angles)


@pytest.mark.parametrize("residue", restype_1to3.values())
def test_bonds_connect_all_atoms_of_a_residue(residue):
    bonds, angles = bonds_and_angles(residue)
    rings = {"HIS": 1, "PHE": 1, "PRO": 1, "TYR": 1, "TRP": 2}
    assert len(bonds) == len(residue_atoms[residue]) - 1 + rings.get(residue, 0)
    assert {name for bond in bonds for name in (bond.atom_1, bond.atom_2)} == set(
        residue_atoms[residue]
    )
    pairs = {frozenset((bond.atom_1, bond.atom_2)) for bond in bonds}
    for angle in angles:
        assert {
            frozenset((angle.atom_1, angle.atom_2)),
            frozenset((angle.atom_2, angle.atom_3)),
        } <= pairs
    assert all(1.1 < bond.length < 1.9 and 0 < bond.stddev < 0.1 for bond in bonds)


def test_distance_across_a_right_angle():
    bonds = (Bond("A", "B", 3.0, 0.1), Bond("C", "B", 4.0, 0.2))
    across = angle_as_bond(BondAngle("A", "B", "C", math.pi / 2, 0.01), bonds)
    assert across.length == pytest.approx(5.0)
    # The derivatives of d = sqrt(a^2 + b^2 - 2ab cos) at a right angle are 3/5, 4/5 and 3*4/5.
    assert across.stddev == pytest.approx(math.hypot(0.1 * 3 / 5, 0.2 * 4 / 5, 0.01 * 12 / 5))


def test_angles_of_the_peptide_bond_in_degrees():
    assert math.degrees(math.acos(between_residue_cos_angle_c_n_ca[0])) == pytest.approx(
        121.352, abs=0.01
    )
    assert math.degrees(math.acos(between_residue_cos_angle_ca_c_n[0])) == pytest.approx(
        116.568, abs=0.01
    )


def test_radii_of_the_elements():
    cysteine = restype_atom14_van_der_waals_radius[restype_order["C"]]
    np.testing.assert_allclose(cysteine, [1.55, 1.7, 1.7, 1.52, 1.7, 1.8, *[0.0] * 8])
    np.testing.assert_array_equal(restype_atom14_van_der_waals_radius > 0, restype_atom14_mask > 0)


def test_distance_bounds_of_glycine():
    lower, upper = make_atom14_dists_bounds(
        overlap_tolerance_angstrom=1.5, bond_length_tolerance_factor=12.0
    )
    row, (n, ca, o) = restype_order["G"], (0, 1, 3)
    bond = next(
        bond for bond in bonds_and_angles("GLY")[0] if {bond.atom_1, bond.atom_2} == {"N", "CA"}
    )
    assert lower[row, ca, n] == pytest.approx(bond.length - 12 * bond.stddev)
    assert upper[row, n, ca] == pytest.approx(bond.length + 12 * bond.stddev)
    # N and O are neither bonded nor the end atoms of a bond angle.
    assert lower[row, n, o] == pytest.approx(1.55 + 1.52 - 1.5) and upper[row, n, o] > 1e9


def test_idealized_backbones_are_within_the_bounds():
    lower, upper = make_atom14_dists_bounds(bond_length_tolerance_factor=15.0)
    np.testing.assert_array_equal(lower, lower.transpose(0, 2, 1))
    for letter, row in restype_order.items():
        atoms = restype_atom14_rigid_group_positions[row]
        # N, CA and C are in the backbone group.
        for i, j in ((0, 1), (1, 2), (0, 2)):
            distance = np.linalg.norm(atoms[i] - atoms[j])
            assert lower[row, i, j] < distance < upper[row, i, j], letter
    assert not lower[20].any() and not upper[20].any()


def test_bounds_are_cached_and_read_only():
    first, second = (make_atom14_dists_bounds(bond_length_tolerance_factor=11.0) for _ in range(2))
    assert first[0] is second[0]
    with pytest.raises(ValueError):
        first[0][0, 0, 0] = 1.0
