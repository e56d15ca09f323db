"""Count the violations of bonds, angles and van der Waals distances in a structure.

The bounds are those of the violation loss (AF2 suppl. 1.9.11), with its tolerances. Unlike the
loss, which reproduces the benchmark, a disulfide bond is between two cysteines only, and the angle
at C has its own standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.protein import stereo_chemistry as chemistry
from openfold_opt.protein.residue_constants import (
    atom_order,
    residue_atoms,
    restype_atom14_mask,
    restype_atom14_to_atom37,
    restype_order,
    sequence_to_aatype,
)

N, CA, C = (atom_order[name] for name in ("N", "CA", "C"))
SG_SLOT = residue_atoms["CYS"].index("SG")
"""Slot of SG in atom14."""
MEAN_CA_CA_ANGSTROM = 3.80209737096
"""Distance of the CA atoms of two residues with a trans peptide bond."""
CA_CA_TOLERANCE_ANGSTROM = 1.5
_LIMITS = ViolationLossConfig()
_BLOCK_ROWS = 256
"""Rows of the matrix of residue distances that are computed at a time."""
_BLOCK_PAIRS = 4096
"""Pairs of residues whose atoms are compared at a time."""


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Deviations of one kind that exceed their tolerance."""

    count: int
    worst: float
    """The largest part of a deviation beyond the tolerance; 0 if there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Violations:
    """Violations of one chain. Pairs with a missing atom do not count."""

    clashes: Deviations
    """Pairs of atoms of different residues whose van der Waals spheres overlap by more than 1.5
    angstrom; angstrom."""
    bonds: Deviations
    """Lengths of the bonds C-N between neighbors; angstrom."""
    angles: Deviations
    """Angles CA-C-N and C-N-CA between neighbors; difference of the cosines."""
    chain_breaks: Deviations
    """CA-CA distances of neighbors of more than 5.3 angstrom; angstrom."""
    residue_distances: Deviations
    """Pairs of atoms of one residue: bonds, angles and overlaps; angstrom."""
    residues: np.ndarray
    """bool [N_res]: which residues are part of a violation of any kind."""


def find_violations(structure: ChainStructure) -> Violations:
    """Return the violations of a structure.

    Residues that follow each other in the sequence are neighbors.
    """
    aatype = sequence_to_aatype(structure.sequence)
    slots = restype_atom14_to_atom37[aatype]
    exists = np.take_along_axis(structure.atom_mask, slots, axis=1)
    exists &= restype_atom14_mask[aatype] > 0
    positions = np.take_along_axis(structure.positions, slots[..., None], axis=1)
    positions = positions.astype(np.float64)
    residues = np.zeros(structure.num_residues, bool)
    clashes = _clashes(aatype, positions, exists, residues)
    bonds, angles, chain_breaks = _peptide_bonds(aatype, structure, residues)
    return Violations(
        clashes=clashes,
        bonds=bonds,
        angles=angles,
        chain_breaks=chain_breaks,
        residue_distances=_residue_distances(aatype, positions, exists, residues),
        residues=residues,
    )


def _clashes(
    aatype: np.ndarray, positions: np.ndarray, exists: np.ndarray, residues: np.ndarray
) -> Deviations:
    """Find overlaps of atoms of different residues, and mark their residues."""
    radii = chemistry.restype_atom14_van_der_waals_radius[aatype]
    is_sulfur = np.zeros(exists.shape, bool)
    is_sulfur[:, SG_SLOT] = aatype == restype_order["C"]
    count, worst = 0, 0.0
    for i, j in _close_residues(positions, exists):
        distance = _distances(positions[i], positions[j])
        overlap = radii[i][:, :, None] + radii[j][:, None] - distance
        overlap -= _LIMITS.clash_overlap_tolerance_angstrom
        is_ignored = is_sulfur[i][:, :, None] & is_sulfur[j][:, None]
        # In atom14 the slots of N and C are 0 and 2.
        is_ignored[:, 2, 0] |= j == i + 1
        is_clash = exists[i][:, :, None] & exists[j][:, None] & ~is_ignored & (overlap > 0.0)
        count += int(is_clash.sum())
        worst = max(worst, overlap[is_clash].max(initial=0.0))
        has_clash = is_clash.any((1, 2))
        residues[i[has_clash]] = residues[j[has_clash]] = True
    return Deviations(count=count, worst=float(worst))


def _close_residues(
    positions: np.ndarray, exists: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of pairs (i, j), i < j, of the residues that may have a clash."""
    numbers = np.flatnonzero(exists.any(1))
    mask = exists[numbers][..., None]
    # Each residue is inside a sphere.
    centers = (positions[numbers] * mask).sum(1) / mask.sum(1)
    offsets = (positions[numbers] - centers[:, None]) * mask
    reach = np.sqrt((offsets**2).sum(-1)).max(1, initial=0.0)
    reach += max(chemistry.van_der_waals_radius.values())
    for start in range(0, len(numbers), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        limits = reach[rows, None] + reach[None]
        is_close = _distances(centers[rows], centers) < limits
        first, second = np.nonzero(is_close)
        first += start
        is_pair = first < second
        first, second = numbers[first[is_pair]], numbers[second[is_pair]]
        for block in range(0, len(first), _BLOCK_PAIRS):
            pairs = slice(block, block + _BLOCK_PAIRS)
            yield first[pairs], second[pairs]


def _peptide_bonds(
    aatype: np.ndarray, structure: ChainStructure, residues: np.ndarray
) -> tuple[Deviations, Deviations, Deviations]:
    """Check C-N lengths, the angles at C and N, and CA-CA distances, and mark the residues."""
    mask = structure.atom_mask
    this, following = structure.positions[:-1].astype(float), structure.positions[1:].astype(float)
    has_bond = mask[:-1, C] & mask[1:, N]
    to_n, length = _direction(this[:, C], following[:, N])
    to_ca, _ = _direction(this[:, C], this[:, CA])
    n_to_ca, _ = _direction(following[:, N], following[:, CA])
    is_proline = (aatype[1:] == restype_order["P"]).astype(int)
    factor = _LIMITS.violation_tolerance_factor
    lengths = np.array(chemistry.between_residue_bond_length_c_n)[is_proline]
    length_stddevs = np.array(chemistry.between_residue_bond_length_stddev_c_n)[is_proline]
    cos_at_c, stddev_at_c = chemistry.between_residue_cos_angle_ca_c_n
    cos_at_n, stddev_at_n = chemistry.between_residue_cos_angle_c_n_ca
    bond_excess = (np.abs(length - lengths) - factor * length_stddevs) * has_bond
    excess_at_c = np.abs((to_ca * to_n).sum(-1) - cos_at_c) - factor * stddev_at_c
    excess_at_n = np.abs((-to_n * n_to_ca).sum(-1) - cos_at_n) - factor * stddev_at_n
    angle_excess = np.stack(
        [excess_at_c * (has_bond & mask[:-1, CA]), excess_at_n * (has_bond & mask[1:, CA])]
    )
    _, ca_distance = _direction(this[:, CA], following[:, CA])
    break_excess = ca_distance - (MEAN_CA_CA_ANGSTROM + CA_CA_TOLERANCE_ANGSTROM)
    break_excess *= mask[:-1, CA] & mask[1:, CA]
    for excess in (bond_excess, *angle_excess, break_excess):
        residues[:-1] |= excess > 0.0
        residues[1:] |= excess > 0.0
    return _deviations(bond_excess), _deviations(angle_excess), _deviations(break_excess)


def _residue_distances(
    aatype: np.ndarray, positions: np.ndarray, exists: np.ndarray, residues: np.ndarray
) -> Deviations:
    """Check the distances of the atoms of each residue, and mark the residues."""
    lower, upper = chemistry.make_atom14_dists_bounds(
        overlap_tolerance_angstrom=_LIMITS.clash_overlap_tolerance_angstrom,
        bond_length_tolerance_factor=_LIMITS.violation_tolerance_factor,
    )
    distance = _distances(positions, positions)
    excess = np.maximum(lower[aatype] - distance, distance - upper[aatype])
    excess *= np.triu(exists[:, :, None] & exists[:, None], k=1)
    residues |= (excess > 0.0).any((1, 2))
    return _deviations(excess)


def _deviations(excess: np.ndarray) -> Deviations:
    """Return the number of positive values and the largest one."""
    excess = excess[excess > 0.0]
    return Deviations(count=len(excess), worst=float(excess.max(initial=0.0)))


def _direction(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors from start to end, and the distances; zero for equal points."""
    offset = end - start
    distance = np.sqrt((offset**2).sum(-1))
    return offset / np.maximum(distance, 1e-6)[..., None], distance


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distances of all pairs: [..., n, 3] and [..., m, 3] -> [..., n, m]."""
    return np.sqrt(((points[..., :, None, :] - others[..., None, :, :]) ** 2).sum(-1))
