"""Atom positions of a sequence, from ideal bonds and angles and the torsions in grammar.py."""

from __future__ import annotations

import numpy as np
import torch

from data_prep.synthesize.grammar import backbone_torsions, chi_torsions
from openfold_opt.geometry.atoms import atom14_to_atom37, make_atom14_masks
from openfold_opt.geometry.frames import (
    frames_and_literature_positions_to_atom14,
    torsion_angles_to_frames,
)
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.protein.residue_constants import (
    restype_1to3,
    rigid_group_atom_positions,
    sequence_to_aatype,
)
from openfold_opt.protein.stereo_chemistry import (
    between_residue_bond_length_c_n,
    between_residue_cos_angle_c_n_ca,
    between_residue_cos_angle_ca_c_n,
)

OMEGA_DEGREES = 180.0
"""All peptide bonds are trans."""


def place_atom(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, internal: tuple[float, float, float]
) -> np.ndarray:
    """Return the position of an atom d that is bonded to c.

    Args:
        a, b, c: [3] angstrom.
        internal: distance c-d in angstrom, angle b-c-d and torsion a-b-c-d in radians.

    Returns:
        [3] angstrom.
    """
    distance, angle, torsion = internal
    x = (c - b) / np.linalg.norm(c - b)
    z = np.cross(b - a, x)
    z = z / np.linalg.norm(z)
    y = np.cross(z, x)
    local = (-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion))
    return c + distance * (local[0] * x + local[1] * y + local[2] * z)


def build_backbone(sequence: str, torsions_degrees: np.ndarray) -> np.ndarray:
    """Return N, CA and C of every residue: float64 [N_res, 3, 3] angstrom.

    Bonds and angles inside a residue are those of its ideal rigid group, those between residues are
    the means of the PDB.

    Args:
        torsions_degrees: phi and psi, [N_res, 2].
    """
    phi, psi = np.deg2rad(torsions_degrees).T
    omega = np.deg2rad(OMEGA_DEGREES)
    angle_at_c, angle_at_n = (
        np.arccos(between_residue_cos_angle_ca_c_n[0]),
        np.arccos(between_residue_cos_angle_c_n_ca[0]),
    )
    backbone = np.empty((len(sequence), 3, 3))
    for i, letter in enumerate(sequence):
        ideal = {
            name: np.array(position)
            for name, _, position in rigid_group_atom_positions[restype_1to3[letter]]
        }
        if i == 0:
            backbone[0] = ideal["N"], ideal["CA"], ideal["C"]
            continue
        # CA is the origin of the ideal positions.
        n_ca, ca_c = np.linalg.norm(ideal["N"]), np.linalg.norm(ideal["C"])
        angle_at_ca = np.arccos(ideal["N"] @ ideal["C"] / (n_ca * ca_c))
        before_n, before_ca, before_c = backbone[i - 1]
        peptide = between_residue_bond_length_c_n[letter == "P"]
        n = place_atom(before_n, before_ca, before_c, (peptide, angle_at_c, psi[i - 1]))
        ca = place_atom(before_ca, before_c, n, (n_ca, angle_at_n, omega))
        backbone[i] = n, ca, place_atom(before_c, n, ca, (ca_c, angle_at_ca, phi[i]))
    return backbone


def build_atoms(sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Return all heavy atoms of a sequence.

    Returns:
        positions float32 [N_res, 37, 3] in angstrom, centered on the CA atoms, and mask bool
        [N_res, 37].
    """
    torsions = backbone_torsions(sequence)
    backbone = torch.from_numpy(build_backbone(sequence, torsions))
    backbone = backbone - backbone[:, 1].mean(dim=0)
    # The origin is CA, C is on the positive x axis, and N is in the xy plane at positive y. The
    # first argument is a point on the negative x axis: C reflected at CA.
    frames = Rigid.from_three_points(
        2 * backbone[:, 1] - backbone[:, 2], backbone[:, 1], backbone[:, 0], eps=0.0
    )
    degrees = np.concatenate(
        [np.full((len(sequence), 1), OMEGA_DEGREES), torsions, chi_torsions(sequence)], axis=1
    )
    angles = torch.from_numpy(np.deg2rad(degrees))
    aatype = torch.from_numpy(sequence_to_aatype(sequence))
    groups = torsion_angles_to_frames(
        frames, torch.stack([angles.sin(), angles.cos()], dim=-1), aatype
    )
    masks = make_atom14_masks(aatype)
    atom14 = frames_and_literature_positions_to_atom14(groups, aatype)
    exists = masks["atom37_atom_exists"]
    atom37 = atom14_to_atom37(atom14, masks["residx_atom37_to_atom14"], exists)
    return atom37.numpy().astype(np.float32), exists.numpy().astype(bool)
