"""Complete a chain for a force field with hydrogens and the terminal oxygen."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.protein.residue_constants import (
    atom_order,
    atom_types,
    restype_1to3,
    restype_atom37_mask,
    sequence_to_aatype,
)
from openfold_opt.protein.stereo_chemistry import bonds_and_angles

if TYPE_CHECKING:
    from openmm import Platform
    from openmm.app import Residue, Topology

PH = 7.0
OXT = atom_order["OXT"]
TERMINAL_HYDROGENS = ("H2", "H3")
"""Hydrogens that only the first residue of a protein has at N."""
_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Molecule:
    """A chain with all atoms that the force field needs."""

    topology: Topology
    positions: np.ndarray
    """[N_atoms, 3] float64, angstrom."""
    known: np.ndarray
    """[N_known] int64: the atoms that the structure has, in the order of atom_mask."""


def build_molecule(structure: ChainStructure, platform: Platform) -> Molecule:
    """Add the terminal oxygen and hydrogens, in the same way on every call.

    There is no bond between residues that do not follow each other. Only the first and the last
    residue of the sequence are termini. Other residues at a gap have the atoms that they have
    inside a chain. Cysteines whose SG atoms are closer than 3 angstrom form a disulfide bond.

    Args:
        structure: every residue has all its heavy atoms or none (check_atoms).
        platform: computes the positions of the hydrogens.
    """
    from openmm import unit
    from openmm.app import Modeller

    topology, positions = _heavy_atoms(structure)
    modeller = Modeller(topology, positions * unit.angstrom)
    with _seeded():
        modeller.addHydrogens(pH=PH, platform=platform)
    first = next(modeller.topology.residues())
    if first.id != "1":
        surplus = [atom for atom in first.atoms() if atom.name in TERMINAL_HYDROGENS]
        modeller.delete(surplus)
    return Molecule(
        topology=modeller.topology,
        positions=np.array(modeller.positions.value_in_unit(unit.angstrom)),
        known=_known_atoms(modeller.topology, structure),
    )


def check_atoms(structure: ChainStructure) -> None:
    """Check that a structure can be completed.

    Raises:
        ValueError: there are no atoms, a residue has only a part of its heavy atoms or other ones,
            or a position is not finite.
    """
    mask = structure.atom_mask
    if not mask.any():
        raise ValueError(f"{structure.name} has no atoms")
    if not np.isfinite(structure.positions[mask]).all():
        raise ValueError(f"{structure.name} has positions that are not finite")
    expected = restype_atom37_mask[sequence_to_aatype(structure.sequence)] > 0
    expected[-1, OXT] = mask[-1, OXT]
    is_wrong = mask.any(1) & (mask != expected).any(1)
    if is_wrong.any():
        index = int(np.flatnonzero(is_wrong)[0])
        found, wanted = (
            " ".join(np.array(atom_types)[atoms[index]]) or "none" for atoms in (mask, expected)
        )
        raise ValueError(
            f"{structure.name}: residue {index + 1} ({structure.sequence[index]}) has the atoms "
            f"{found}; expected {wanted}, or no atoms at all"
        )


def _heavy_atoms(structure: ChainStructure) -> tuple[Topology, np.ndarray]:
    """Return atoms and bonds of the structure with OXT, and [N_atoms, 3] positions, angstrom."""
    from openmm import unit
    from openmm.app import Element, Topology

    topology, positions = Topology(), []
    chain = topology.addChain("A")
    previous: dict | None = None
    for index, letter in enumerate(structure.sequence):
        slots = np.flatnonzero(structure.atom_mask[index])
        coordinates = dict(zip(slots.tolist(), structure.positions[index, slots].astype(float)))
        if len(slots) and index == structure.num_residues - 1:
            coordinates.setdefault(OXT, _terminal_oxygen(structure.positions[index].astype(float)))
        atoms = {}
        if coordinates:
            name = restype_1to3[letter]
            residue = topology.addResidue(name, chain, id=str(index + 1))
            for slot, position in coordinates.items():
                element = Element.getBySymbol(atom_types[slot][0])
                atoms[atom_types[slot]] = topology.addAtom(atom_types[slot], element, residue)
                positions.append(position)
            bonds, _ = bonds_and_angles(name)
            pairs = [(bond.atom_1, bond.atom_2) for bond in bonds]
            pairs += [("C", "OXT")] if "OXT" in atoms else []
            for one, other in pairs:
                topology.addBond(atoms[one], atoms[other])
            if previous:
                topology.addBond(previous["C"], atoms["N"])
        previous = atoms
    array = np.array(positions)
    topology.createDisulfideBonds(array * unit.angstrom)
    return topology, array


def _terminal_oxygen(residue: np.ndarray) -> np.ndarray:
    """Return the position of OXT: that of O, reflected at the axis CA-C."""
    ca, c, o = (residue[atom_order[name]] for name in ("CA", "C", "O"))
    axis = (c - ca) / max(float(np.linalg.norm(c - ca)), 1e-6)
    offset = o - c
    return c + 2.0 * axis * (axis @ offset) - offset


def _known_atoms(topology: Topology, structure: ChainStructure) -> np.ndarray:
    """Return the atoms of the structure in a topology, in the order of its mask."""
    indices = np.full(structure.atom_mask.shape, -1, np.int64)
    for residue in topology.residues():
        for atom in residue.atoms():
            if atom.name in atom_order:
                indices[int(residue.id) - 1, atom_order[atom.name]] = atom.index
    return indices[structure.atom_mask]


def disulfide_cysteines(topology: Topology) -> list[Residue]:
    """Return the residues whose SG is bonded to another residue."""
    return [
        atom.residue
        for bond in topology.bonds()
        if all(atom.name == "SG" for atom in bond)
        for atom in bond
    ]


@contextmanager
def _seeded() -> Iterator[None]:
    """Give OpenMM, which places hydrogens with the generator of Python, a fixed seed."""
    state = random.getstate()
    random.seed(_SEED)
    try:
        yield
    finally:
        random.setstate(state)
