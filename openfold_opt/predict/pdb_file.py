"""Write a predicted structure in the PDB format, with pLDDT in the B factor of every atom."""

from __future__ import annotations

from collections.abc import Iterator

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.structure_file import CHAIN_ID, atom_places, residue_names
from openfold_opt.protein.residue_constants import atom_types

MAX_RESIDUES = 9_999
"""Residue numbers have four columns."""
MAX_ATOMS = 99_999
"""Atom numbers have five columns."""
COORDINATE_RANGE = (-999.999, 9_999.999)
"""Coordinates have eight columns with three decimals, angstrom."""
_TITLE_COLUMNS = 70
_RESIDUES_PER_LINE = 13


def pdb_problem(structure: ChainStructure) -> str | None:
    """Say why a structure does not fit the PDB format; None if it does."""
    num_residues, num_atoms = structure.num_residues, int(structure.atom_mask.sum())
    if num_residues > MAX_RESIDUES or num_atoms > MAX_ATOMS:
        return (
            f"no PDB file: {num_residues:,} residues and {num_atoms:,} atoms, and the format "
            f"numbers at most {MAX_RESIDUES:,} residues and {MAX_ATOMS:,} atoms; use the mmCIF file"
        )
    positions = structure.positions[structure.atom_mask]
    low, high = COORDINATE_RANGE
    if positions.size and not (low <= positions.min() and positions.max() <= high):
        return (
            f"no PDB file: coordinates from {positions.min():,.1f} to {positions.max():,.1f} "
            f"angstrom, and the format has columns for {low:,} to {high:,}; use the mmCIF file"
        )
    return None


def pdb_text(structure: ChainStructure) -> str:
    """Return the content of a PDB file.

    Args:
        structure: with pLDDT, and without a `pdb_problem`. Its name becomes the title.
    """
    return "".join(f"{line:<80}\n" for line in _lines(structure))


def _lines(structure: ChainStructure) -> Iterator[str]:
    yield from _title(structure.name)
    yield "REMARK   1"
    yield "REMARK   1 THE B FACTOR IS THE PREDICTED LDDT-CA OF THE RESIDUE, 0 TO 100."
    names = residue_names(structure)
    for number, start in enumerate(range(0, len(names), _RESIDUES_PER_LINE), start=1):
        residues = " ".join(names[start : start + _RESIDUES_PER_LINE])
        yield f"SEQRES{number:>4} {CHAIN_ID}{len(names):>5}  {residues}"
    for serial, (residue, slot) in enumerate(atom_places(structure), start=1):
        x, y, z = structure.positions[residue, slot].tolist()
        name = atom_types[slot]
        yield (
            f"ATOM  {serial:>5}  {name:<3} {names[residue]} {CHAIN_ID}{residue + 1:>4}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}{1.0:6.2f}{structure.plddt[residue]:6.2f}"
            f"          {name[0]:>2}"
        )
    yield "TER"
    yield "END"


def _title(name: str) -> Iterator[str]:
    """Yield the lines of the title; characters that are not ASCII become escapes."""
    text = name.encode("ascii", "backslashreplace").decode()
    for start in range(0, len(text), _TITLE_COLUMNS):
        number = start // _TITLE_COLUMNS + 1
        continuation = f"{number:>2}" if number > 1 else "  "
        yield f"TITLE   {continuation}{text[start : start + _TITLE_COLUMNS]}"
