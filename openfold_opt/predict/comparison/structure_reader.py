"""Read protein chains from mmCIF, ModelCIF and PDB files, also compressed with gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import gemmi
import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.protein.residue_constants import (
    atom_order,
    atom_type_num,
    atom_types,
    restype_3to1,
    restype_order,
)

STRUCTURE_SUFFIXES = tuple(
    suffix + compression
    for suffix in (".cif", ".mmcif", ".pdb", ".ent")
    for compression in ("", ".gz")
)
"""Endings of the names of structure files."""
_UNKNOWN_LETTER = "X"
_PROTEINS = (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD)
_GZIP_START = b"\x1f\x8b"


class StructureError(ValueError):
    """A file is not a structure with protein chains."""


def read_structures(
    path: Path, *, on_warning: Callable[[str], None] | None = None
) -> list[ChainStructure]:
    """Read all protein chains of the first model, in the order of the file.

    The sequence of a chain is that of `_entity_poly_seq` or SEQRES, so that residues without atoms
    stay. Without such a sequence it consists of the residues that have atoms. Numbers of the author
    and insertion codes do not matter.

    Of several residues at one position (microheterogeneity), the one with the highest occupancy is
    used, and of several locations of an atom the one with the highest occupancy; the first one if
    they are equal. MSE is read as MET, and other modified residues as the standard residue that
    gemmi's table gives; X if it gives none. Hydrogen and atoms without a slot in atom37 are left
    out.

    Args:
        path: a file; its content determines the format.
        on_warning: receives a line about each property of the file that is ignored.

    Raises:
        StructureError: the file is empty, damaged, not a structure, or has no protein chain.
        OSError: the file cannot be read.
    """
    structure = _parse(path)
    num_models = len(structure)
    if not num_models or not structure[0].count_atom_sites():
        raise StructureError(
            f"{path} has no atoms; expected a structure as mmCIF or PDB with _atom_site or ATOM"
        )
    if num_models > 1 and on_warning is not None:
        on_warning(f"{path} has {num_models} models; the first one is used")
    structure.setup_entities()
    structure.assign_label_seq_id()
    chains = [
        _read_chain(path, chain.name, span, structure.get_entity_of(span))
        for chain in structure[0]
        for span in chain.subchains()
        if _is_protein(span, structure.get_entity_of(span))
    ]
    if not chains:
        raise StructureError(
            f"{path} has no protein chain; its chains are "
            f"{', '.join(chain.name for chain in structure[0])}"
        )
    return chains


def structure_stem(path: Path) -> str | None:
    """Return the file name without the ending of a structure file; None for other files."""
    for suffix in STRUCTURE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def _parse(path: Path) -> gemmi.Structure:
    content = path.read_bytes()
    if content.startswith(_GZIP_START):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise StructureError(
                f"{path} is a damaged gzip file ({error}); fetch or compress it again"
            ) from error
    if not content.strip():
        raise StructureError(f"{path} is empty; expected a structure as mmCIF or PDB")
    try:
        return gemmi.read_structure_string(content, format=gemmi.CoorFormat.Detect)
    except (ValueError, RuntimeError) as error:
        # The second line of the message of gemmi quotes the file.
        reason = str(error).splitlines()[0]
        raise StructureError(
            f"{path} is not a complete mmCIF or PDB file ({reason}); if it was copied or "
            "downloaded, fetch it again"
        ) from error


def _is_protein(span: gemmi.ResidueSpan, entity: gemmi.Entity | None) -> bool:
    if entity is None or entity.entity_type != gemmi.EntityType.Polymer:
        return False
    kind = entity.polymer_type
    return (span.check_polymer_type() if kind == gemmi.PolymerType.Unknown else kind) in _PROTEINS


def _read_chain(
    path: Path, name: str, span: gemmi.ResidueSpan, entity: gemmi.Entity
) -> ChainStructure:
    monomers = [entity.first_mon(names) for names in entity.full_sequence]
    numbers = [residue.label_seq for residue in span]
    if monomers and all(number is not None for number in numbers):
        indices = [number - 1 for number in numbers]
        if min(indices) < 0 or max(indices) >= len(monomers):
            raise StructureError(
                f"{path}: chain {name} has atoms of the residues {min(numbers)} to {max(numbers)}, "
                f"but its sequence has {len(monomers)} residues"
            )
    else:
        indices, monomers = _indices_of_residues(span)
    letters = [_letter(monomer) for monomer in monomers]
    positions = np.zeros((len(letters), atom_type_num, 3), np.float32)
    mask = np.zeros((len(letters), atom_type_num), bool)
    for index, residue in _most_occupied(indices, span):
        letters[index] = _letter(residue.name)
        for slot, atom in _atoms(residue):
            positions[index, slot], mask[index, slot] = atom.pos.tolist(), True
    if not np.isfinite(positions).all():
        index, slot = np.argwhere(~np.isfinite(positions))[0, :2]
        raise StructureError(
            f"{path}: atom {atom_types[slot]} of residue {index + 1} of chain {name} has the "
            f"position {positions[index, slot].tolist()}; expected numbers"
        )
    return ChainStructure(name=name, sequence="".join(letters), positions=positions, atom_mask=mask)


def _indices_of_residues(span: gemmi.ResidueSpan) -> tuple[list[int], list[str]]:
    """Return the index of every residue, and the names, of a chain without a known sequence."""
    indices: list[int] = []
    names: list[str] = []
    previous = None
    for residue in span:
        if residue.seqid != previous:
            names.append(residue.name)
        previous = residue.seqid
        indices.append(len(names) - 1)
    return indices, names


def _most_occupied(
    indices: list[int], span: gemmi.ResidueSpan
) -> Iterator[tuple[int, gemmi.Residue]]:
    """Yield one residue for each index: of several, the one with the highest occupancy."""
    candidates: dict[int, list[gemmi.Residue]] = {}
    for index, residue in zip(indices, span):
        candidates.setdefault(index, []).append(residue)
    for index, residues in candidates.items():
        yield index, max(residues, key=lambda residue: max(atom.occ for atom in residue))


def _letter(residue_name: str) -> str:
    """Return the one-letter code of a standard or modified residue; X if there is none."""
    if residue_name in restype_3to1:
        return restype_3to1[residue_name]
    # The table has lower-case letters for modified residues.
    letter = gemmi.find_tabulated_residue(residue_name).one_letter_code.upper()
    return letter if letter in restype_order else _UNKNOWN_LETTER


def _atoms(residue: gemmi.Residue) -> Iterator[tuple[int, gemmi.Atom]]:
    """Yield the slot in atom37 and the atom with the highest occupancy for each atom name."""
    best: dict[int, gemmi.Atom] = {}
    for atom in residue:
        name = "SD" if (residue.name, atom.name) == ("MSE", "SE") else atom.name
        slot = atom_order.get(name)
        if slot is not None and (slot not in best or atom.occ > best[slot].occ):
            best[slot] = atom
    yield from best.items()
