"""Write a predicted structure as mmCIF, with pLDDT in the B factor of every atom.

The file has the sequence (`_entity_poly`, `_entity_poly_seq`), so that readers find residues
without atoms (unknown residues, X) as well. Columns of mmCIF have no fixed width: a chain may have
any number of residues and atoms.
"""

from __future__ import annotations

import gemmi
import numpy as np

from openfold_opt.predict.file_names import safe_stem
from openfold_opt.protein.residue_constants import atom_order, atom_types, restype_1to3

CHAIN_ID = "A"
ENTITY_ID = "1"
UNKNOWN_RESIDUE = "UNK"
_SOFTWARE = "openfold-opt"
_ATOM_SITE = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id "
    "label_entity_id label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy "
    "B_iso_or_equiv auth_seq_id auth_comp_id auth_asym_id auth_atom_id pdbx_PDB_model_num"
).split()
# The usual order of the atoms of a residue has O before CB; atom37 has it after CB.
_ATOM_SLOTS = np.array(
    [atom_order[name] for name in ("N", "CA", "C", "O", "CB")]
    + [slot for name, slot in atom_order.items() if name not in ("N", "CA", "C", "O", "CB")]
)


def structure_text(
    name: str, sequence: str, *, positions: np.ndarray, atom_mask: np.ndarray, plddt: np.ndarray
) -> str:
    """Return the content of an mmCIF file.

    Args:
        name: name of the chain, which becomes the title.
        sequence: one-letter codes; a letter that is no standard residue is written as UNK.
        positions: [N_res, 37, 3], angstrom; written with three decimals.
        atom_mask: bool [N_res, 37]; only these atoms are written.
        plddt: [N_res], 0..100; written as the B factor of every atom, with two decimals.

    Raises:
        ValueError: an array has another number of residues than the sequence.
    """
    num_residues = len(sequence)
    shapes = (positions.shape, atom_mask.shape, plddt.shape)
    if shapes != ((num_residues, 37, 3), (num_residues, 37), (num_residues,)):
        raise ValueError(
            f"{name}: positions, atom mask and pLDDT have the shapes {shapes}; expected those of "
            f"{num_residues} residues in atom37"
        )
    residues = [restype_1to3.get(letter, UNKNOWN_RESIDUE) for letter in sequence]
    document = gemmi.cif.Document()
    # mmCIF is ASCII text, and the name of a block has no spaces.
    block = document.add_new_block(safe_stem(name))
    description = gemmi.cif.quote(name.encode("ascii", "backslashreplace").decode())
    _add_header(block, description)
    _add_sequence(block, sequence, residues, description=description)
    _add_atoms(block, residues, positions=positions, atom_mask=atom_mask, plddt=plddt)
    return document.as_string()


def _add_header(block: gemmi.cif.Block, description: str) -> None:
    entry_id = gemmi.cif.quote(block.name)
    block.set_pair("_entry.id", entry_id)
    block.set_pair("_struct.entry_id", entry_id)
    block.set_pair("_struct.title", description)
    block.set_pair("_exptl.entry_id", entry_id)
    block.set_pair("_exptl.method", gemmi.cif.quote("THEORETICAL MODEL"))
    software = block.init_loop("_software.", ["pdbx_ordinal", "name", "classification"])
    software.add_row(["1", _SOFTWARE, gemmi.cif.quote("structure prediction")])


def _add_sequence(
    block: gemmi.cif.Block, sequence: str, residues: list[str], *, description: str
) -> None:
    """Add entity, chain, residue types and sequence."""
    block.init_loop("_entity.", ["id", "type", "pdbx_description"]).add_row(
        [ENTITY_ID, "polymer", description]
    )
    letters = "".join(
        letter if residue != UNKNOWN_RESIDUE else "X" for letter, residue in zip(sequence, residues)
    )
    lines = "\n".join(letters[start : start + 80] for start in range(0, len(letters), 80))
    polymer = "entity_id type nstd_linkage nstd_monomer pdbx_strand_id".split()
    block.init_loop(
        "_entity_poly.", [*polymer, "pdbx_seq_one_letter_code", "pdbx_seq_one_letter_code_can"]
    ).add_row(
        [ENTITY_ID, "polypeptide(L)", "no", "no", CHAIN_ID, f"\n;{lines}\n;", f"\n;{lines}\n;"]
    )
    block.init_loop("_struct_asym.", ["id", "entity_id"]).add_row([CHAIN_ID, ENTITY_ID])
    components = block.init_loop("_chem_comp.", ["id", "type"])
    for residue in sorted(set(residues)):
        kind = "peptide linking" if residue == "GLY" else "L-peptide linking"
        components.add_row([residue, gemmi.cif.quote(kind)])
    numbers = [str(number) for number in range(1, len(residues) + 1)]
    loop = block.init_loop("_entity_poly_seq.", ["entity_id", "num", "mon_id", "hetero"])
    columns = [[ENTITY_ID] * len(residues), numbers, residues, ["n"] * len(residues)]
    loop.set_all_values(columns)


def _add_atoms(
    block: gemmi.cif.Block,
    residues: list[str],
    *,
    positions: np.ndarray,
    atom_mask: np.ndarray,
    plddt: np.ndarray,
) -> None:
    """Add `_atom_site`, one row for each atom of the mask."""
    exists = np.asarray(atom_mask, bool)[:, _ATOM_SLOTS]
    index, column = np.nonzero(exists)
    slots = _ATOM_SLOTS[column]
    num_atoms = len(index)
    names = [atom_types[slot] for slot in slots]
    comp_ids = [residues[i] for i in index]
    numbers = [str(i + 1) for i in index]
    coordinates = np.asarray(positions, np.float64)[index, slots]
    x, y, z = ([f"{value:.3f}" for value in coordinates[:, axis]] for axis in range(3))
    values = {
        "group_PDB": ["ATOM"] * num_atoms,
        "id": [str(serial) for serial in range(1, num_atoms + 1)],
        "type_symbol": [name[0] for name in names],
        "label_atom_id": names,
        "label_alt_id": ["."] * num_atoms,
        "label_comp_id": comp_ids,
        "label_asym_id": [CHAIN_ID] * num_atoms,
        "label_entity_id": [ENTITY_ID] * num_atoms,
        "label_seq_id": numbers,
        "pdbx_PDB_ins_code": ["?"] * num_atoms,
        "Cartn_x": x,
        "Cartn_y": y,
        "Cartn_z": z,
        "occupancy": ["1.00"] * num_atoms,
        "B_iso_or_equiv": [f"{value:.2f}" for value in np.asarray(plddt, np.float64)[index]],
        "auth_seq_id": numbers,
        "auth_comp_id": comp_ids,
        "auth_asym_id": [CHAIN_ID] * num_atoms,
        "auth_atom_id": names,
        "pdbx_PDB_model_num": ["1"] * num_atoms,
    }
    loop = block.init_loop("_atom_site.", _ATOM_SITE)
    loop.set_all_values([values[name] for name in _ATOM_SITE])
