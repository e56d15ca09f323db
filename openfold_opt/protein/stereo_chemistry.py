"""Bonds inside and between residues, and how near atoms may come: what the violation loss measures against.

AF2 suppl. 1.9.11. Numbers inside residues are those of stereo_chemistry_table.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from openfold_opt.protein.residue_constants import read_only, residue_atoms, restype_1to3
from openfold_opt.protein.stereo_chemistry_table import STEREO_CHEMISTRY_TABLE

van_der_waals_radius = {"C": 1.7, "N": 1.55, "O": 1.52, "S": 1.8}
"""Element -> radius in angstrom."""

# Between residues: first any next residue, then proline.
between_residue_bond_length_c_n = (1.329, 1.341)
between_residue_bond_length_stddev_c_n = (0.014, 0.016)
# Cosines of the angles at N and at C with their standard deviations (121.352 +- 2.315 and 116.568 +- 1.995 degrees).
between_residue_cos_angle_c_n_ca = (-0.5203, 0.0353)
between_residue_cos_angle_ca_c_n = (-0.4473, 0.0311)


def _atom14_radii() -> np.ndarray:
    radii = np.zeros((21, 14), np.float32)
    for restype, residue in enumerate(restype_1to3.values()):
        # the element is the first letter of an atom's name
        for slot, name in enumerate(residue_atoms[residue]):
            radii[restype, slot] = van_der_waals_radius[name[0]]
    return read_only(radii)


restype_atom14_van_der_waals_radius = _atom14_radii()
"""float32 [21, 14] angstrom; zero in unused slots."""


@dataclass(frozen=True)
class Bond:
    """Two atoms of one residue with their distance and its standard deviation in angstrom."""

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
    """Bonds and bond angles of a residue by its three-letter name."""
    bonds, angles = [], []
    for line in STEREO_CHEMISTRY_TABLE[residue].strip().splitlines():
        name, mean, stddev = line.split()
        atoms = name.split("-")
        if len(atoms) == 2:
            bonds.append(Bond(*atoms, float(mean), float(stddev)))
        else:
            angles.append(
                BondAngle(*atoms, float(np.deg2rad(float(mean))), float(np.deg2rad(float(stddev))))
            )
    return tuple(bonds), tuple(angles)


def angle_as_bond(angle: BondAngle, bonds: tuple[Bond, ...]) -> Bond:
    """The distance between the ends of an angle, by the law of cosines, with its error propagated as if uncorrelated."""
    lengths = {frozenset((bond.atom_1, bond.atom_2)): bond for bond in bonds}
    one = lengths[frozenset((angle.atom_1, angle.atom_2))]
    two = lengths[frozenset((angle.atom_2, angle.atom_3))]
    cosine, sine = np.cos(angle.angle), np.sin(angle.angle)
    length = np.sqrt(one.length**2 + two.length**2 - 2 * one.length * two.length * cosine)
    stddev = np.sqrt(
        (one.length * two.length * sine / length * angle.stddev) ** 2
        + ((one.length - two.length * cosine) / length * one.stddev) ** 2
        + ((two.length - one.length * cosine) / length * two.stddev) ** 2
    )
    return Bond(angle.atom_1, angle.atom_3, float(length), float(stddev))


@functools.cache
def make_atom14_dists_bounds(
    *, overlap_tolerance_angstrom: float = 1.5, bond_length_tolerance_factor: float = 15.0
) -> tuple[np.ndarray, np.ndarray]:
    """How near and how far two atoms of one residue may be.

    Bonded pairs, and the ends of bond angles: mean -+ factor * stddev. Other pairs: no nearer than the sum of their van
    der Waals radii less the tolerance, and any distance above. Made once for each pair of tolerances.

    Returns:
        lower and upper bound, float32 [21, 14, 14] angstrom, read-only; zero where a slot has no atom.
    """
    lower = np.zeros((21, 14, 14), np.float32)
    upper = np.zeros((21, 14, 14), np.float32)
    for restype, residue in enumerate(restype_1to3.values()):
        names = residue_atoms[residue]
        count = len(names)
        radii = np.array([van_der_waals_radius[name[0]] for name in names])
        apart = ~np.eye(count, dtype=bool)
        lower[restype, :count, :count] = (
            radii[:, None] + radii[None] - overlap_tolerance_angstrom
        ) * apart
        upper[restype, :count, :count] = 1e10 * apart
        bonds, angles = bonds_and_angles(residue)
        for bond in (*bonds, *(angle_as_bond(angle, bonds) for angle in angles)):
            i, j = names.index(bond.atom_1), names.index(bond.atom_2)
            slack = bond_length_tolerance_factor * bond.stddev
            lower[restype, [i, j], [j, i]] = bond.length - slack
            upper[restype, [i, j], [j, i]] = bond.length + slack
    return read_only(lower), read_only(upper)
