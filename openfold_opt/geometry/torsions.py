"""Torsion angles of residues, computed from their atoms."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.geometry.atoms import gather_atoms
from openfold_opt.geometry.residue_tables import lookup
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.protein.residue_constants import (
    atom_order,
    chi_angles_mask,
    chi_atom_indices,
    chi_pi_periodic,
)

_N, _CA, _C, _O = (atom_order[name] for name in ("N", "CA", "C", "O"))
PSI = 2
"""Index of psi among the seven torsion angles."""
_EPS = 1e-8


def atom37_to_torsion_angles(
    aatype: Tensor, all_atom_positions: Tensor, all_atom_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute sine and cosine of omega, phi, psi and chi1..chi4 (AF2 suppl. table 2).

    omega and phi of a residue use atoms of the previous residue, so the first residue has neither.
    psi is measured with O, which is opposite to the next N, so its sine and cosine are negated.

    Args:
        aatype: [..., N_res] int64, classes 0..21.
        all_atom_positions: [..., N_res, 37, 3].
        all_atom_mask: [..., N_res, 37].

    Returns:
        sin_cos: [..., N_res, 7, 2].
        alternative: sin_cos with the pi-periodic chi angles rotated by pi, [..., N_res, 7, 2].
        mask: [..., N_res, 7], 1 if all four atoms are resolved.
    """
    points, mask = _torsion_atoms(aatype, all_atom_positions, all_atom_mask)
    first, second, third, fourth = points.unbind(-2)
    local = Rigid.from_three_points(second, third, first, eps=_EPS).invert_apply(fourth)
    sin_cos = torch.stack([local[..., 2], local[..., 1]], dim=-1)
    sin_cos = sin_cos / torch.sqrt((sin_cos * sin_cos).sum(-1, keepdim=True) + _EPS)
    # fill_ runs on the device. Assigning a list of Python numbers would copy it from the host.
    sign = torch.ones_like(sin_cos)
    sign[..., PSI, :].fill_(-1.0)
    sin_cos = sin_cos * sign
    chi_sign = 1.0 - 2.0 * lookup(chi_pi_periodic, aatype)
    alternative_sign = torch.cat([chi_sign.new_ones(*chi_sign.shape[:-1], 3), chi_sign], dim=-1)
    return sin_cos, sin_cos * alternative_sign[..., None], mask


def _torsion_atoms(aatype: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the four atoms of each torsion, [..., N_res, 7, 4, 3], and a mask, [..., N_res, 7]."""
    previous_positions = torch.cat(
        [torch.zeros_like(positions[..., :1, :, :]), positions[..., :-1, :, :]], dim=-3
    )
    previous_mask = torch.cat([torch.zeros_like(mask[..., :1, :]), mask[..., :-1, :]], dim=-2)
    # A list of integers as an index would be copied from the host to the device, so atoms are
    # indexed one by one.
    this, previous = positions.unbind(-2), previous_positions.unbind(-2)
    torsions = (
        (previous[_CA], previous[_C], this[_N], this[_CA]),  # omega
        (previous[_C], this[_N], this[_CA], this[_C]),  # phi
        (this[_N], this[_CA], this[_C], this[_O]),  # psi
    )
    backbone = torch.stack([torch.stack(atoms, dim=-2) for atoms in torsions], dim=-3)
    this_has, previous_has = mask.unbind(-1), previous_mask.unbind(-1)
    backbone_mask = torch.stack(
        [
            previous_has[_CA] * previous_has[_C] * this_has[_N] * this_has[_CA],
            previous_has[_C] * this_has[_N] * this_has[_CA] * this_has[_C],
            this_has[_N] * this_has[_CA] * this_has[_C] * this_has[_O],
        ],
        dim=-1,
    )
    slots = lookup(chi_atom_indices, aatype)
    flat = slots.flatten(-2)
    chi = gather_atoms(positions, flat).unflatten(-2, slots.shape[-2:])
    chi_mask = mask.gather(-1, flat).unflatten(-1, slots.shape[-2:]).prod(-1) * lookup(
        chi_angles_mask, aatype
    )
    return torch.cat([backbone, chi], dim=-3), torch.cat([backbone_mask, chi_mask], dim=-1)
