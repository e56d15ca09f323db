"""Atom layouts atom14 and atom37 (see openfold_opt.protein.residue_constants)."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.geometry.residue_tables import lookup
from openfold_opt.protein.residue_constants import (
    atom_order,
    restype_atom14_is_ambiguous,
    restype_atom14_mask,
    restype_atom14_renaming,
    restype_atom14_to_atom37,
    restype_atom37_mask,
    restype_atom37_to_atom14,
    restype_order,
)


def make_atom14_masks(aatype: Tensor) -> dict[str, Tensor]:
    """Return the masks of existing atoms and the index maps between the two layouts.

    Args:
        aatype: [..., N_res] int64, classes 0..20.

    Returns:
        atom14_atom_exists [..., N_res, 14] and atom37_atom_exists [..., N_res, 37] float32;
        residx_atom14_to_atom37 [..., N_res, 14] and residx_atom37_to_atom14 [..., N_res, 37] int64.
    """
    return {
        "atom14_atom_exists": lookup(restype_atom14_mask, aatype),
        "residx_atom14_to_atom37": lookup(restype_atom14_to_atom37, aatype),
        "residx_atom37_to_atom14": lookup(restype_atom37_to_atom14, aatype),
        "atom37_atom_exists": lookup(restype_atom37_mask, aatype),
    }


def gather_atoms(values: Tensor, slots: Tensor) -> Tensor:
    """Gather values [..., n, k] of atoms at slots [..., m]: [..., m, k]."""
    return values.gather(-2, slots[..., None].expand(*slots.shape, values.shape[-1]))


def atom14_to_atom37(
    positions: Tensor, residx_atom37_to_atom14: Tensor, atom37_atom_exists: Tensor
) -> Tensor:
    """Convert positions from atom14 to atom37.

    Args:
        positions: [..., N_res, 14, 3] angstrom.
        residx_atom37_to_atom14: [..., N_res, 37] int64.
        atom37_atom_exists: [..., N_res, 37].

    Returns:
        [..., N_res, 37, 3] angstrom, zero for atoms that the residue type lacks.
    """
    return gather_atoms(positions, residx_atom37_to_atom14) * atom37_atom_exists[..., None]


def make_atom14_positions(
    aatype: Tensor, all_atom_positions: Tensor, all_atom_mask: Tensor
) -> dict[str, Tensor]:
    """Convert the ground truth to atom14, with and without renaming of ambiguous atoms.

    See AF2 suppl. 1.8.5, Algorithm 26.

    Args:
        aatype: [..., N_res] int64.
        all_atom_positions: [..., N_res, 37, 3] angstrom.
        all_atom_mask: [..., N_res, 37].

    Returns:
        atom14_gt_exists, atom14_alt_gt_exists, atom14_atom_is_ambiguous [..., N_res, 14];
        atom14_gt_positions, atom14_alt_gt_positions [..., N_res, 14, 3].
    """
    slots = lookup(restype_atom14_to_atom37, aatype)
    exists = all_atom_mask.gather(-1, slots) * lookup(restype_atom14_mask, aatype)
    positions = gather_atoms(all_atom_positions, slots) * exists[..., None]
    renaming = lookup(restype_atom14_renaming, aatype)
    return {
        "atom14_gt_exists": exists,
        "atom14_gt_positions": positions,
        "atom14_alt_gt_exists": exists.gather(-1, renaming),
        "atom14_alt_gt_positions": gather_atoms(positions, renaming),
        "atom14_atom_is_ambiguous": lookup(restype_atom14_is_ambiguous, aatype),
    }


def pseudo_beta(
    aatype: Tensor, all_atom_positions: Tensor, all_atom_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Select the CB atom of each residue, or CA for glycine.

    Args:
        aatype: [..., N_res] int64.
        all_atom_positions: [..., N_res, 37, 3].
        all_atom_mask: [..., N_res, 37].

    Returns:
        Positions [..., N_res, 3] and mask [..., N_res].
    """
    is_glycine = aatype == restype_order["G"]
    ca, cb = atom_order["CA"], atom_order["CB"]
    positions = torch.where(
        is_glycine[..., None], all_atom_positions[..., ca, :], all_atom_positions[..., cb, :]
    )
    return positions, torch.where(is_glycine, all_atom_mask[..., ca], all_atom_mask[..., cb])
