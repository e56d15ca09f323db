"""Residues and their atoms: names, orders, torsions and the arrays that follow from them.

Two layouts of a residue's atoms are used everywhere:

    atom37   one slot for each of the 37 names that heavy atoms of proteins have; a slot means the same name in all residues
    atom14   the at most 14 heavy atoms of one residue, packed; what a slot means depends on the residue type

Residue types are numbered as `restypes` (0..19), 20 is unknown (X, no atoms), 21 a gap (alignments and templates only).
Arrays with a leading 21 have a last row for X. All of it is read-only.
"""

from __future__ import annotations

import numpy as np

from openfold_opt.protein.hhblits_alphabet import LETTERS as HHBLITS_LETTERS
from openfold_opt.protein.rigid_group_table import RIGID_GROUP_TABLE

restype_1to3 = dict(
    zip(
        "ARNDCQEGHILKMFPSTWYV",
        "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split(),
        strict=True,
    )
)
restype_3to1 = {name: letter for letter, name in restype_1to3.items()}
restypes = tuple(restype_1to3)
restypes_with_x = (*restypes, "X")
restypes_with_x_and_gap = (*restypes_with_x, "-")
restype_num = len(restypes)
unknown_restype_index = restype_num
restype_order = {letter: index for index, letter in enumerate(restypes)}
restype_order_with_x = {letter: index for index, letter in enumerate(restypes_with_x)}

atom_types = tuple(
    "N CA C CB O CG CG1 CG2 OG OG1 SG CD CD1 CD2 ND1 ND2 OD1 OD2 SD CE CE1 CE2 CE3 "
    "NE NE1 NE2 OE1 OE2 CH2 NH1 NH2 OH CZ CZ2 CZ3 NZ OXT".split()
)
atom_order = {name: index for index, name in enumerate(atom_types)}
atom_type_num = len(atom_types)

NUM_RIGID_GROUPS = 8
"""Backbone, pre-omega, phi, psi, chi1..chi4."""
NUM_CHI = 4


def read_only(array: np.ndarray) -> np.ndarray:
    """The array itself, no longer writeable: tables are shared."""
    array.setflags(write=False)
    return array


def _parse_rigid_groups() -> dict[str, tuple[tuple[str, int, tuple[float, float, float]], ...]]:
    parsed = {}
    for residue, text in RIGID_GROUP_TABLE.items():
        rows = [line.split() for line in text.strip().splitlines()]
        parsed[residue] = tuple(
            (atom, int(group), (float(x), float(y), float(z))) for atom, group, x, y, z in rows
        )
    return parsed


rigid_group_atom_positions = _parse_rigid_groups()
"""Residue name -> ((atom name, rigid group, (x, y, z) in angstrom in the group's frame), ...) in the order of atom14."""

residue_atoms = {
    residue: tuple(row[0] for row in rows) for residue, rows in rigid_group_atom_positions.items()
}
"""Residue name -> names of its heavy atoms (without OXT) in the order of atom14."""

_SIDE_CHAIN_PATHS = {
    "ARG": "N CA CB CG CD NE CZ",
    "ASN": "N CA CB CG OD1",
    "ASP": "N CA CB CG OD1",
    "CYS": "N CA CB SG",
    "GLN": "N CA CB CG CD OE1",
    "GLU": "N CA CB CG CD OE1",
    "HIS": "N CA CB CG ND1",
    "ILE": "N CA CB CG1 CD1",
    "LEU": "N CA CB CG CD1",
    "LYS": "N CA CB CG CD CE NZ",
    "MET": "N CA CB CG SD CE",
    "PHE": "N CA CB CG CD1",
    "PRO": "N CA CB CG CD",
    "SER": "N CA CB OG",
    "THR": "N CA CB OG1",
    "TRP": "N CA CB CG CD1",
    "TYR": "N CA CB CG CD1",
    "VAL": "N CA CB CG1",
}


def _chi_atoms(residue: str) -> tuple[tuple[str, ...], ...]:
    path = _SIDE_CHAIN_PATHS.get(residue, "").split()
    return tuple(tuple(path[i : i + 4]) for i in range(len(path) - 3))


chi_angles_atoms = {residue: _chi_atoms(residue) for residue in restype_3to1}
"""Residue name -> the four atoms of chi1, chi2, ...: four neighbors each along the side chain."""

_PI_PERIODIC_CHI = {"ASP": 1, "GLU": 2, "PHE": 1, "TYR": 1}
"""Chi (from 0) whose turn by pi gives the same molecule with two atoms renamed."""

residue_atom_renaming_swaps = {
    "ASP": {"OD1": "OD2"},
    "GLU": {"OE1": "OE2"},
    "PHE": {"CD1": "CD2", "CE1": "CE2"},
    "TYR": {"CD1": "CD2", "CE1": "CE2"},
}
"""Pairs of atoms whose names are exchangeable (AF2 suppl. table 3)."""

hhblits_to_model_order = read_only(
    np.array([restypes_with_x_and_gap.index(letter) for letter in HHBLITS_LETTERS])
)
"""int64 [22]: residue type of each token of a stored alignment."""


def sequence_to_aatype(sequence: str) -> np.ndarray:
    """int64 [N_res] residue types of one-letter codes; any letter that is not one of the twenty becomes 20."""
    return np.array(
        [restype_order.get(letter, unknown_restype_index) for letter in sequence], dtype=np.int64
    )


def _chi_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mask = np.zeros((21, NUM_CHI), np.float32)
    periodic = np.zeros((21, NUM_CHI), np.float32)
    indices = np.zeros((21, NUM_CHI, 4), np.int64)
    for restype, residue in enumerate(restype_1to3.values()):
        for chi, atoms in enumerate(chi_angles_atoms[residue]):
            mask[restype, chi] = 1.0
            indices[restype, chi] = [atom_order[atom] for atom in atoms]
        if residue in _PI_PERIODIC_CHI:
            periodic[restype, _PI_PERIODIC_CHI[residue]] = 1.0
    return read_only(mask), read_only(periodic), read_only(indices)


chi_angles_mask, chi_pi_periodic, chi_atom_indices = _chi_tables()
"""float32 [21, 4] chi exists, and is periodic in pi; int64 [21, 4, 4] its atoms in atom37 (0 where none)."""


def _atom_tables() -> dict[str, np.ndarray]:
    tables = {
        "atom14_to_atom37": np.zeros((21, 14), np.int64),
        "atom37_to_atom14": np.zeros((21, 37), np.int64),
        "atom14_mask": np.zeros((21, 14), np.float32),
        "atom37_mask": np.zeros((21, 37), np.float32),
        "atom14_group": np.zeros((21, 14), np.int64),
        "atom14_positions": np.zeros((21, 14, 3), np.float32),
    }
    for restype, residue in enumerate(restype_1to3.values()):
        for slot, (atom, group, position) in enumerate(rigid_group_atom_positions[residue]):
            index = atom_order[atom]
            tables["atom14_to_atom37"][restype, slot] = index
            tables["atom37_to_atom14"][restype, index] = slot
            tables["atom14_mask"][restype, slot] = tables["atom37_mask"][restype, index] = 1.0
            tables["atom14_group"][restype, slot] = group
            tables["atom14_positions"][restype, slot] = position
    return {name: read_only(table) for name, table in tables.items()}


_ATOMS = _atom_tables()
restype_atom14_to_atom37 = _ATOMS["atom14_to_atom37"]
"""int64 [21, 14]: atom37 slot of each atom14 slot (0 where unused)."""
restype_atom37_to_atom14 = _ATOMS["atom37_to_atom14"]
"""int64 [21, 37]: the other way round (0 where the residue has no such atom)."""
restype_atom14_mask = _ATOMS["atom14_mask"]
restype_atom37_mask = _ATOMS["atom37_mask"]
"""float32 [21, 14] and [21, 37]: 1 where the residue type has the atom."""
restype_atom14_to_rigid_group = _ATOMS["atom14_group"]
"""int64 [21, 14]: the rigid group that moves each atom (0 where unused)."""
restype_atom14_rigid_group_positions = _ATOMS["atom14_positions"]
"""float32 [21, 14, 3] angstrom: idealised position of each atom in the frame of its rigid group."""


def _frame(x_axis: np.ndarray, xy_direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Homogeneous [4, 4]: x along the first vector, y toward the second, by Gram and Schmidt."""
    x = x_axis / np.linalg.norm(x_axis)
    y = xy_direction - np.dot(xy_direction, x) * x
    y = y / np.linalg.norm(y)
    frame = np.eye(4)
    frame[:3] = np.stack([x, y, np.cross(x, y), origin], axis=1)
    return frame


def _default_frames(residue: str) -> np.ndarray:
    """[8, 4, 4]: each group's frame at torsion zero, seen from the group before (chi2..chi4) or from the backbone."""
    at = {atom: np.array(position) for atom, _, position in rigid_group_atom_positions[residue]}
    frames = np.tile(np.eye(4), (NUM_RIGID_GROUPS, 1, 1))
    frames[2] = _frame(at["N"] - at["CA"], np.array([1.0, 0.0, 0.0]), at["N"])
    frames[3] = _frame(at["C"] - at["CA"], at["CA"] - at["N"], at["C"])
    for chi, (a, b, c, _) in enumerate(chi_angles_atoms[residue]):
        if chi == 0:
            frames[4] = _frame(at[c] - at[b], at[a] - at[b], at[c])
        else:
            # the axis of chi2.. starts at the origin of the group before, whose x axis points at it
            frames[4 + chi] = _frame(at[c], np.array([-1.0, 0.0, 0.0]), at[c])
    for chi in range(len(chi_angles_atoms[residue]), NUM_CHI):
        frames[4 + chi] = 0.0
    return frames


restype_rigid_group_default_frame = read_only(
    np.stack(
        [*(_default_frames(residue) for residue in restype_1to3.values()), np.zeros((8, 4, 4))]
    ).astype(np.float32)
)
"""float32 [21, 8, 4, 4]; zero for groups that do not exist."""


def _ambiguity_tables() -> tuple[np.ndarray, np.ndarray]:
    ambiguous = np.zeros((21, 14), np.float32)
    renamed = np.tile(np.arange(14), (21, 1))
    for residue, swaps in residue_atom_renaming_swaps.items():
        restype, names = restype_order[restype_3to1[residue]], residue_atoms[residue]
        for one, other in swaps.items():
            i, j = names.index(one), names.index(other)
            ambiguous[restype, [i, j]] = 1.0
            renamed[restype, [i, j]] = [j, i]
    return read_only(ambiguous), read_only(renamed)


restype_atom14_is_ambiguous, restype_atom14_renaming = _ambiguity_tables()
"""float32 [21, 14] name is exchangeable; int64 [21, 14] the slot that each slot becomes when names are exchanged."""
