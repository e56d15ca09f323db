"""Chains of real entries, altered copies of them, and structure files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.comparison.structure_reader import StructureError, read_structures
from openfold_opt.protein.residue_constants import atom_types, restype_1to3

EXAMPLES = Path(__file__).parents[2] / "examples/own_data/entries/raw"
COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id "
    "label_entity_id label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy "
    "B_iso_or_equiv auth_seq_id auth_asym_id pdbx_PDB_model_num"
).split()


@dataclass(frozen=True, kw_only=True)
class Atom:
    """A row of `_atom_site`."""

    name: str = "CA"
    residue: str = "ALA"
    number: int | str = 1
    """label_seq_id."""
    x: float | str = 0.0
    alt: str = "."
    occupancy: float = 1.0
    chain: str = "A"
    author: str = "A"
    author_number: int = 1
    insertion: str = "?"
    model: int = 1
    entity: int = 1


def mmcif_text(atoms: Sequence[Atom], *, sequence: Sequence[str] = ()) -> str:
    """Return an mmCIF file of one protein. sequence: names of the residues; empty: not stated."""
    lines = ["data_test", "_entity.id 1", "_entity.type polymer"]
    lines += ["_entity_poly.entity_id 1", "_entity_poly.type polypeptide(L)"]
    lines += ["loop_", "_struct_asym.id", "_struct_asym.entity_id"]
    lines += [f"{chain} 1" for chain in dict.fromkeys(atom.chain for atom in atoms)]
    if sequence:
        lines += ["loop_", *(f"_entity_poly_seq.{name}" for name in ("entity_id", "num", "mon_id"))]
        # "SER/THR" is one position with two types.
        numbered = enumerate(sequence, start=1)
        lines += [f"1 {number} {one}" for number, names in numbered for one in names.split("/")]
    lines += ["loop_", *(f"_atom_site.{name}" for name in COLUMNS)]
    for serial, atom in enumerate(atoms, start=1):
        start = f"ATOM {serial} {atom.name[0]} {atom.name} {atom.alt} {atom.residue} {atom.chain} 1"
        lines.append(
            f"{start} {atom.number} {atom.insertion} {atom.x} {serial}.0 0.0 {atom.occupancy} 10.0 "
            f"{atom.author_number} {atom.author} {atom.model}"
        )
    return "\n".join(lines) + "\n"


def real_chains(folder: Path, *, min_residues: int, max_residues: int) -> list[ChainStructure]:
    """Return the first protein chain of every entry of a folder, in the order of the names.

    Only chains with a suitable number of residues that have a CA atom. Other residues are removed.
    """
    chains = []
    for path in sorted(folder.rglob("*.cif.gz")):
        try:
            chain = only_residues(*_first_with_ca(path))
        except StructureError:
            # An entry without protein.
            continue
        if min_residues <= chain.num_residues <= max_residues:
            chains.append(replace(chain, name=path.name.partition(".")[0]))
    return chains


def _first_with_ca(path: Path) -> tuple[ChainStructure, np.ndarray]:
    chain = read_structures(path)[0]
    return chain, chain.has_ca


def only_residues(chain: ChainStructure, keep: np.ndarray) -> ChainStructure:
    """Return a chain without the residues where keep is False, also in its sequence."""
    return ChainStructure(
        name=chain.name,
        sequence="".join(np.array(list(chain.sequence))[keep]),
        positions=chain.positions[keep],
        atom_mask=chain.atom_mask[keep],
    )


def moved(chain: ChainStructure, positions: np.ndarray) -> ChainStructure:
    """Return a chain with other positions. positions: [N_res, 37, 3]."""
    return replace(chain, positions=positions.astype(np.float32))


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a rotation matrix [3, 3]."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix * np.linalg.det(matrix)


def perturbed(chain: ChainStructure, rng: np.random.Generator) -> ChainStructure:
    """Return a chain with a domain motion, noise, and another position and orientation."""
    positions = chain.positions.astype(np.float64)
    start = int(rng.integers(chain.num_residues // 4, 3 * chain.num_residues // 4))
    hinge = positions[start, 1]
    angle = rng.uniform(0.0, 1.5)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    positions[start:] = (positions[start:] - hinge) @ turn + hinge
    positions += rng.normal(size=positions.shape) * rng.uniform(0.1, 1.5)
    return moved(chain, positions @ random_rotation(rng) + rng.uniform(-30, 30, 3))


def write_pdb(path: Path, chain: ChainStructure, *, first_number: int = 1) -> Path:
    """Write a chain as PDB without SEQRES, with author numbers from first_number on."""
    structure = gemmi.Structure()
    model, residues = gemmi.Model(1), gemmi.Chain("A")
    for index, letter in enumerate(chain.sequence):
        residue = gemmi.Residue()
        residue.name = restype_1to3.get(letter, "UNK")
        residue.seqid = gemmi.SeqId(first_number + index, " ")
        for slot in np.flatnonzero(chain.atom_mask[index]):
            atom = gemmi.Atom()
            atom.name = atom_types[slot]
            atom.element = gemmi.Element(atom.name[0])
            atom.pos = gemmi.Position(*chain.positions[index, slot].astype(float))
            residue.add_atom(atom)
        residues.add_residue(residue)
    model.add_chain(residues)
    structure.add_model(model)
    path.write_text(structure.make_pdb_string())
    return path
