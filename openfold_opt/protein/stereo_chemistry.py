"""Ideal bonds within and between residues, and distance bounds, for the violation loss.

See AF2 suppl. 1.9.11. The values within residues are those of stereo_chemistry_table.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from openfold_opt.protein.residue_constants import read_only, residue_atoms, restype_1to3
from openfold_opt.protein.stereo_chemistry_table import STEREO_CHEMISTRY_TABLE

van_der_waals_radius = {"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8}
"""Element -> radius in angstrom."""

# Between residues: the first value is for any next residue except proline, the second for proline.
between_residue_bond_length_c_n = (1.329, 1.341)
between_residue_bond_length_stddev_c_n = (0.014, 0.016)
# (cosine, standard deviation of the cosine) of the angle C-N-CA at N, 121.352 +- 2.315 degrees, and
# of the angle CA-C-N at C, 116.568 +- 1.995 degrees.
between_residue_cos_angle_c_n_ca = (-0.5203, 0.0353)
between_residue_cos_angle_ca_c_n = (-0.4473, 0.0311)


def _atom14_radii() -> np.ndarray:
    radii = np.zeros((21, 14), np.float32)
    for restype, residue in enumerate(restype_1to3.values()):
        # The element is the first letter of the atom name.
        for slot, name in enumerate(residue_atoms[residue]):
            radii[restype, slot] = van_der_waals_radius[name[0]]
    return read_only(radii)


restype_atom14_van_der_waals_radius = _atom14_radii()
"""float32 [21, 14] angstrom; zero in unused slots."""


@dataclass(frozen=True)
class Bond:
    """Distance between two atoms of a residue and its standard deviation, both in angstrom."""

    atom_1: str
    atom_2: str
    length: float
    stddev: float


@dataclass(frozen=True)
class BondAngle:
    """Angle at atom_2 and its standard deviation, both in radians."""

    atom_1: str
    atom_2: str
    atom_3: str
    angle: float
    stddev: float


def bonds_and_angles(residue: str) -> tuple[tuple[Bond, ...], tuple[BondAngle, ...]]:
    """Return the bonds and bond angles of a residue, given its three-letter name."""
    bonds, angles = [], []
    for line in STEREO_CHEMISTRY_TABLE[residue].strip().splitlines():
        name, mean, stddev = line.split()
        atoms = name.split("-")
        if len(atoms) == 2:
            bonds.append(Bond(atoms[0], atoms[1], float(mean), float(stddev)))
        else:
            angle, deviation = (float(np.deg2rad(float(value))) for value in (mean, stddev))
            angles.append(BondAngle(atoms[0], atoms[1], atoms[2], angle, deviation))
    return tuple(bonds), tuple(angles)


def angle_as_bond(angle: BondAngle, bonds: tuple[Bond, ...]) -> Bond:
    """Return the distance between the end atoms of an angle by the law of cosines.

    The standard deviation assumes uncorrelated errors of the two bonds and the angle.
    """
    lengths = {frozenset((bond.atom_1, bond.atom_2)): bond for bond in bonds}
    bond_1 = lengths[frozenset((angle.atom_1, angle.atom_2))]
    bond_2 = lengths[frozenset((angle.atom_2, angle.atom_3))]
    cosine, sine = np.cos(angle.angle), np.sin(angle.angle)
    length = np.sqrt(
        bond_1.length**2 + bond_2.length**2 - 2 * bond_1.length * bond_2.length * cosine
    )
    stddev = np.sqrt(
        (bond_1.length * bond_2.length * sine / length * angle.stddev) ** 2
        + ((bond_1.length - bond_2.length * cosine) / length * bond_1.stddev) ** 2
        + ((bond_2.length - bond_1.length * cosine) / length * bond_2.stddev) ** 2
    )
    return Bond(angle.atom_1, angle.atom_3, float(length), float(stddev))


@functools.cache
def make_atom14_dists_bounds(
    *, overlap_tolerance_angstrom: float = 1.5, bond_length_tolerance_factor: float = 15.0
) -> tuple[np.ndarray, np.ndarray]:
    """Compute bounds of the distance between two atoms of a residue.

    For bonded pairs and the end atoms of bond angles the bounds are mean -+ factor * stddev. For
    other pairs the lower bound is the sum of the van der Waals radii minus the overlap tolerance,
    and there is no upper bound (1e10). The result is cached.

    Returns:
        The lower and the upper bounds, float32 [21, 14, 14], angstrom, read-only; zero for slots
        without an atom.
    """
    lower = np.zeros((21, 14, 14), np.float32)
    upper = np.zeros((21, 14, 14), np.float32)
    for restype, residue in enumerate(restype_1to3.values()):
        names = residue_atoms[residue]
        count = len(names)
        radii = np.array([van_der_waals_radius[name[0]] for name in names])
        is_pair = ~np.eye(count, dtype=bool)
        lower[restype, :count, :count] = (
            radii[:, None] + radii[None] - overlap_tolerance_angstrom
        ) * is_pair
        upper[restype, :count, :count] = 1e10 * is_pair
        bonds, angles = bonds_and_angles(residue)
        for bond in (*bonds, *(angle_as_bond(angle, bonds) for angle in angles)):
            i, j = names.index(bond.atom_1), names.index(bond.atom_2)
            slack = bond_length_tolerance_factor * bond.stddev
            lower[restype, [i, j], [j, i]] = bond.length - slack
            upper[restype, [i, j], [j, i]] = bond.length + slack
    return read_only(lower), read_only(upper)
