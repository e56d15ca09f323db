"""Residues and their atoms: names, orders, torsions and arrays derived from them.

There are two layouts of the atoms of a residue:

    atom37   one slot for each of the 37 names of heavy atoms in proteins; a slot has the same atom
             name in all residue types
    atom14   the heavy atoms of one residue (at most 14), packed; the atom name of a slot depends
             on the residue type

Residue types have the order of `restypes` (0..19); 20 is unknown (X, no atoms) and 21 is a gap (in
alignments and templates only). In arrays with a leading dim of 21, the last row is X. All arrays
are read-only.
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
    """Make an array read-only, because tables are shared, and return it."""
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
"""Residue name -> ((atom name, rigid group, (x, y, z)), ...) in the order of atom14.

Coordinates are in angstrom in the frame of the rigid group.
"""

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
"""Residue name -> the atoms of chi1, chi2, ...: four consecutive atoms of the side chain each."""

_PI_PERIODIC_CHI = {"ASP": 1, "GLU": 2, "PHE": 1, "TYR": 1}
"""0-based chi for which a rotation by pi gives the same molecule with two atoms renamed."""

residue_atom_renaming_swaps = {
    "ASP": {"OD1": "OD2"},
    "GLU": {"OE1": "OE2"},
    "PHE": {"CD1": "CD2", "CE1": "CE2"},
    "TYR": {"CD1": "CD2", "CE1": "CE2"},
}
"""Pairs of atoms with ambiguous (exchangeable) names (AF2 suppl. table 3)."""

hhblits_to_model_order = read_only(
    np.array([restypes_with_x_and_gap.index(letter) for letter in HHBLITS_LETTERS])
)
"""int64 [22]: residue type of each token of a stored alignment."""


def sequence_to_aatype(sequence: str) -> np.ndarray:
    """Return residue types, int64 [N_res], of one-letter codes. Unknown letters become 20."""
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
"""Tables of the torsions chi1..chi4.

float32 [21, 4]: 1 if the chi exists; float32 [21, 4]: 1 if it is periodic in pi; int64 [21, 4, 4]:
its atoms in atom37 (0 if it does not exist).
"""


def _atom_tables() -> dict[str, np.ndarray]:
    tables: dict[str, np.ndarray] = {
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
"""int64 [21, 14]: atom37 slot of each atom14 slot (0 if unused)."""
restype_atom37_to_atom14 = _ATOMS["atom37_to_atom14"]
"""int64 [21, 37]: atom14 slot of each atom37 slot (0 if the residue lacks the atom)."""
restype_atom14_mask = _ATOMS["atom14_mask"]
restype_atom37_mask = _ATOMS["atom37_mask"]
"""float32 [21, 14] and [21, 37]: 1 if the residue type has the atom."""
restype_atom14_to_rigid_group = _ATOMS["atom14_group"]
"""int64 [21, 14]: the rigid group of each atom (0 if unused)."""
restype_atom14_rigid_group_positions = _ATOMS["atom14_positions"]
"""float32 [21, 14, 3] angstrom: idealized position of each atom in the frame of its rigid group."""


def _frame(x_axis: np.ndarray, xy_direction: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return a homogeneous matrix [4, 4] by Gram-Schmidt.

    The x axis is along x_axis, and xy_direction is in the xy plane with positive y.
    """
    x = x_axis / np.linalg.norm(x_axis)
    y = xy_direction - np.dot(xy_direction, x) * x
    y = y / np.linalg.norm(y)
    frame = np.eye(4)
    frame[:3] = np.stack([x, y, np.cross(x, y), origin], axis=1)
    return frame


def _default_frames(residue: str) -> np.ndarray:
    """Return the frame of each group at torsion zero: [8, 4, 4].

    Frames are relative to the previous group (chi2..chi4) or to the backbone (all others).
    """
    at = {atom: np.array(position) for atom, _, position in rigid_group_atom_positions[residue]}
    frames = np.tile(np.eye(4), (NUM_RIGID_GROUPS, 1, 1))
    # 2 is phi, 3 psi, 4 to 7 chi1 to chi4. Backbone (0) and pre-omega (1) are the identity.
    frames[2] = _frame(at["N"] - at["CA"], np.array([1.0, 0.0, 0.0]), at["N"])
    frames[3] = _frame(at["C"] - at["CA"], at["CA"] - at["N"], at["C"])
    for chi, (a, b, c, _) in enumerate(chi_angles_atoms[residue]):
        if chi == 0:
            frames[4] = _frame(at[c] - at[b], at[a] - at[b], at[c])
        else:
            # The rotation axis of chi2..chi4 starts at the origin of the previous group. The atom
            # before it is on the negative x axis of that group.
            frames[4 + chi] = _frame(at[c], np.array([-1.0, 0.0, 0.0]), at[c])
    for chi in range(len(chi_angles_atoms[residue]), NUM_CHI):
        frames[4 + chi] = 0.0
    return frames


restype_rigid_group_default_frame = read_only(
    np.stack(
        [*(_default_frames(residue) for residue in restype_1to3.values()), np.zeros((8, 4, 4))]
    ).astype(np.float32)
)
"""float32 [21, 8, 4, 4]: see _default_frames; zero for chi groups that do not exist."""


def _ambiguity_tables() -> tuple[np.ndarray, np.ndarray]:
    ambiguous = np.zeros((21, 14), np.float32)
    renamed = np.tile(np.arange(14), (21, 1))
    for residue, swaps in residue_atom_renaming_swaps.items():
        restype, names = restype_order[restype_3to1[residue]], residue_atoms[residue]
        for atom_1, atom_2 in swaps.items():
            i, j = names.index(atom_1), names.index(atom_2)
            ambiguous[restype, [i, j]] = 1.0
            renamed[restype, [i, j]] = [j, i]
    return read_only(ambiguous), read_only(renamed)


restype_atom14_is_ambiguous, restype_atom14_renaming = _ambiguity_tables()
"""Tables of ambiguous atom names.

float32 [21, 14]: 1 if the name is ambiguous; int64 [21, 14]: the slot of each atom after renaming.
"""
