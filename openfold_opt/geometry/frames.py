"""Frames of the eight rigid groups of a residue, computed from atoms or from torsion angles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from openfold_opt.geometry.atoms import gather_atoms
from openfold_opt.geometry.residue_tables import lookup
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.protein.residue_constants import (
    NUM_RIGID_GROUPS,
    atom_order,
    chi_angles_atoms,
    chi_angles_mask,
    read_only,
    residue_atom_renaming_swaps,
    restype_1to3,
    restype_3to1,
    restype_atom14_mask,
    restype_atom14_rigid_group_positions,
    restype_atom14_to_atom37,
    restype_atom14_to_rigid_group,
    restype_order,
    restype_rigid_group_default_frame,
)

BACKBONE, PSI, FIRST_CHI = 0, 3, 4
"""Indices of rigid groups."""


def _group_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return the atoms of each group and whether the group exists.

    Returns:
        int64 [21, 8, 3]: the atom37 slots (neg_x_axis, origin, xy_plane) of each group.
        float32 [21, 8]: 1 if the group exists.
    """
    atoms = np.zeros((21, NUM_RIGID_GROUPS, 3), np.int64)
    exists = np.zeros((21, NUM_RIGID_GROUPS), np.float32)
    # X has no side chain, but it has backbone and psi frames.
    exists[:, [BACKBONE, PSI]] = 1.0
    exists[:, FIRST_CHI:] = chi_angles_mask
    for restype, residue in enumerate([*restype_1to3.values(), "UNK"]):
        defining: dict[int, tuple[str, ...]] = {BACKBONE: ("C", "CA", "N"), PSI: ("CA", "C", "O")}
        defining |= {
            FIRST_CHI + chi: names[1:]
            for chi, names in enumerate(chi_angles_atoms.get(residue, ()))
        }
        for group, names in defining.items():
            atoms[restype, group] = [atom_order[name] for name in names]
    return read_only(atoms), read_only(exists)


def _ambiguity_rotations() -> np.ndarray:
    """Return the rotation of each group under renaming of ambiguous atoms: float32 [21, 8, 3, 3].

    It is a rotation by pi about x for the last chi group of residues with ambiguous atoms, and the
    identity for all other groups.
    """
    rotations = np.tile(np.eye(3, dtype=np.float32), (21, NUM_RIGID_GROUPS, 1, 1))
    for residue in residue_atom_renaming_swaps:
        last_chi = len(chi_angles_atoms[residue]) - 1
        rotations[restype_order[restype_3to1[residue]], FIRST_CHI + last_chi] = np.diag(
            [1.0, -1.0, -1.0]
        )
    return read_only(rotations)


def _pseudo_beta_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return slot and position of CB, or CA of glycine.

    Returns:
        int64 [21, 1]: the atom37 slot.
        float32 [21, 3]: the idealized position in the backbone frame, angstrom.
    """
    slots = np.full((21, 1), atom_order["CB"], np.int64)
    slots[restype_order["G"]] = atom_order["CA"]
    is_atom = restype_atom14_to_atom37 == slots
    positions = restype_atom14_rigid_group_positions[np.arange(21), is_atom.argmax(axis=1)]
    return read_only(slots), read_only(positions)


_GROUP_ATOMS, _GROUP_EXISTS = _group_tables()
_PSEUDO_BETA_SLOT, _PSEUDO_BETA_POSITION = _pseudo_beta_tables()
_AMBIGUITY_ROTATIONS = _ambiguity_rotations()


def atom37_to_frames(
    aatype: Tensor, all_atom_positions: Tensor, all_atom_mask: Tensor
) -> dict[str, Tensor]:
    """Compute the frames of the rigid groups from resolved atoms (AF2 suppl. 1.8.4, table 2).

    Args:
        aatype: [..., N_res] int64.
        all_atom_positions: [..., N_res, 37, 3] angstrom.
        all_atom_mask: [..., N_res, 37].

    Returns:
        rigidgroups_gt_frames, rigidgroups_alt_gt_frames: [..., N_res, 8, 4, 4].
        rigidgroups_gt_exists: [..., N_res, 8], 1 if all three atoms of the group are resolved.
        rigidgroups_group_exists: [..., N_res, 8], 1 if the residue type has the group.
        rigidgroups_group_is_ambiguous: [..., N_res, 8], 1 if the frame depends on ambiguous names.
    """
    slots = lookup(_GROUP_ATOMS, aatype)
    flat = slots.flatten(-2)
    atoms = gather_atoms(all_atom_positions, flat).unflatten(-2, slots.shape[-2:])
    resolved = all_atom_mask.gather(-1, flat).unflatten(-1, slots.shape[-2:]).amin(-1)
    frames = Rigid.from_three_points(atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :], eps=1e-8)
    # In the backbone frame C is on the positive x axis, so this frame is rotated by pi about y.
    backbone_sign = frames.rotation.new_ones(NUM_RIGID_GROUPS, 1, 3)
    # fill_ runs on the device. Assigning a list of Python numbers would copy it from the host.
    backbone_sign[BACKBONE, 0, ::2].fill_(-1.0)
    frames = Rigid(frames.rotation * backbone_sign, frames.translation)
    ambiguity = lookup(_AMBIGUITY_ROTATIONS, aatype).to(frames.rotation.dtype)
    alternative = frames.compose(Rigid(ambiguity, torch.zeros_like(frames.translation)))
    group_exists = lookup(_GROUP_EXISTS, aatype)
    return {
        "rigidgroups_gt_frames": frames.to_matrix4x4(),
        "rigidgroups_alt_gt_frames": alternative.to_matrix4x4(),
        "rigidgroups_gt_exists": resolved * group_exists,
        "rigidgroups_group_exists": group_exists,
        "rigidgroups_group_is_ambiguous": (ambiguity[..., 1, 1] < 0).to(group_exists.dtype),
    }


def torsion_angles_to_frames(backbone: Rigid, angles: Tensor, aatype: Tensor) -> Rigid:
    """Compute the global frames of the eight rigid groups (Algorithm 24, lines 1-10).

    Args:
        backbone: Frames [..., N_res].
        angles: [..., N_res, 7, 2], sine and cosine of omega, phi, psi and chi1..chi4.
        aatype: [..., N_res] int64.

    Returns:
        Frames [..., N_res, 8].
    """
    default = Rigid.from_matrix4x4(
        lookup(restype_rigid_group_default_frame, aatype).to(angles.dtype)
    )
    sine, cosine = angles.unbind(-1)
    # Group 0, the backbone, has no torsion: its angle is zero.
    sine = torch.cat([torch.zeros_like(sine[..., :1]), sine], dim=-1)[..., None]
    cosine = torch.cat([torch.ones_like(cosine[..., :1]), cosine], dim=-1)[..., None]
    # This is default times a rotation about x, which mixes the second and the third columns.
    x, y, z = default.rotation.unbind(-1)
    rotation = torch.stack([x, cosine * y + sine * z, cosine * z - sine * y], dim=-1)
    local = Rigid(rotation, default.translation)
    chi_1, chi_2, chi_3, chi_4 = (local[..., FIRST_CHI + chi] for chi in range(4))
    chi_2 = chi_1.compose(chi_2)
    chi_3 = chi_2.compose(chi_3)
    later_chi = (chi_2, chi_3, chi_3.compose(chi_4))
    to_backbone = Rigid(
        torch.cat(
            [local.rotation[..., :5, :, :], *(chi.rotation[..., None, :, :] for chi in later_chi)],
            dim=-3,
        ),
        torch.cat(
            [local.translation[..., :5, :], *(chi.translation[..., None, :] for chi in later_chi)],
            dim=-2,
        ),
    )
    return backbone.unsqueeze(-1).compose(to_backbone)


def frames_and_literature_positions_to_atom14(frames: Rigid, aatype: Tensor) -> Tensor:
    """Transform idealized atom positions to the frames of their groups (Algorithm 24, line 11).

    Args:
        frames: [..., N_res, 8].
        aatype: [..., N_res] int64.

    Returns:
        [..., N_res, 14, 3] angstrom, zero in unused slots.
    """
    groups = lookup(restype_atom14_to_rigid_group, aatype)
    rotation = gather_atoms(frames.rotation.flatten(-2), groups).unflatten(-1, (3, 3))
    translation = gather_atoms(frames.translation, groups)
    positions = Rigid(rotation, translation).apply(
        lookup(restype_atom14_rigid_group_positions, aatype)
    )
    return positions * lookup(restype_atom14_mask, aatype)[..., None]


def pseudo_beta_of_backbone(backbone: Rigid, aatype: Tensor, atom37_exists: Tensor) -> Tensor:
    """Place CB, or CA of glycine. Both belong to the backbone group, so no torsion angle matters.

    Args:
        backbone: Frames [..., N_res].
        aatype: [..., N_res] int64.
        atom37_exists: [..., N_res, 37]

    Returns:
        [..., N_res, 3] angstrom, zero where the atom does not exist.
    """
    exists = atom37_exists.gather(-1, lookup(_PSEUDO_BETA_SLOT, aatype))
    return backbone.apply(lookup(_PSEUDO_BETA_POSITION, aatype)) * exists
