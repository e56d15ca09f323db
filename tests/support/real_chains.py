"""Chains of PDB entries that are part of the project, and damaged copies of them."""

import dataclasses
from pathlib import Path

import numpy as np

from data_prep.parsers.mmcif import parse_mmcif
from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.protein.residue_constants import atom_order, residue_atoms, restype_1to3

ENTRIES = Path(__file__).parents[2] / "examples" / "own_data" / "entries" / "raw"


def real_chain(entry: str) -> ChainStructure:
    """Return the first chain of an entry, with a pLDDT that grows along the chain."""
    (chain, *_) = parse_mmcif(ENTRIES / f"{entry}.cif.gz", own_data=True).chains
    num_residues = len(chain.sequence)
    return ChainStructure(
        name=entry,
        sequence=chain.sequence,
        positions=np.asarray(chain.positions, np.float32) * chain.mask[..., None],
        atom_mask=np.asarray(chain.mask, bool),
        plddt=np.linspace(40.0, 95.0, num_residues, dtype=np.float32),
    )


def with_noise(structure: ChainStructure, angstrom: float, *, seed: int = 0) -> ChainStructure:
    """Move every atom by the same distance in a random direction."""
    directions = np.random.default_rng(seed).standard_normal(structure.positions.shape)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    moved = structure.positions + angstrom * directions * structure.atom_mask[..., None]
    return dataclasses.replace(structure, positions=moved.astype(np.float32))


def with_rotated_side_chain(
    structure: ChainStructure, index: int, degrees: float
) -> ChainStructure:
    """Rotate the side chain of a residue about CA-CB."""
    positions = structure.positions.astype(float)
    ca, cb = (positions[index, atom_order[name]] for name in ("CA", "CB"))
    axis = (cb - ca) / np.linalg.norm(cb - ca)
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    names = set(residue_atoms[restype_1to3[structure.sequence[index]]])
    for name in names - {"N", "CA", "C", "O", "CB"}:
        arm = positions[index, atom_order[name]] - cb
        along = axis * (axis @ arm)
        rotated = cosine * (arm - along) + sine * np.cross(axis, arm)
        positions[index, atom_order[name]] = cb + along + rotated
    return dataclasses.replace(structure, positions=positions.astype(np.float32))


def damaged_chain() -> ChainStructure:
    """Return 1l2y with 8 clashes of a rotated side chain, and wrong bonds in every residue."""
    return with_noise(with_rotated_side_chain(real_chain("1l2y"), 5, 300.0), 0.2)


def with_unknown_residues(structure: ChainStructure, *indices: int) -> ChainStructure:
    """Replace residues by X without atoms."""
    letters, mask = list(structure.sequence), structure.atom_mask.copy()
    for index in indices:
        letters[index], mask[index] = "X", False
    return dataclasses.replace(
        structure,
        sequence="".join(letters),
        positions=structure.positions * mask[..., None],
        atom_mask=mask,
    )
