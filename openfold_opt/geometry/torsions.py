"""Torsion angles of residues from their atoms."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.geometry.atoms import gather_atoms
from openfold_opt.geometry.rigid import Rigid
from openfold_opt.geometry.tables import lookup
from openfold_opt.protein.residue_constants import (
    atom_order,
    chi_angles_mask,
    chi_atom_indices,
    chi_pi_periodic,
)

N, CA, C, O = (atom_order[name] for name in ("N", "CA", "C", "O"))
PSI = 2
"""Index of psi among the seven torsion angles."""
_EPS = 1e-8


def atom37_to_torsion_angles(
    aatype: Tensor, all_atom_positions: Tensor, all_atom_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sine and cosine of omega, phi, psi, chi1..chi4 (AF2 suppl. table 2).

    omega and phi of a residue reach back to the residue before it; the first residue has none. psi is measured to O
    instead of the next N, so its sign is turned.

    Args:
        aatype: [..., N_res] int64, classes 0..21; all_atom_positions: [..., N_res, 37, 3]; all_atom_mask: [..., N_res, 37].

    Returns:
        sin_cos [..., N_res, 7, 2], the same with chi angles that are periodic in pi turned by pi, mask [..., N_res, 7].
    """
    points, mask = _torsion_atoms(aatype, all_atom_positions, all_atom_mask)
    first, second, third, fourth = points.unbind(-2)
    local = Rigid.from_three_points(second, third, first, eps=_EPS).invert_apply(fourth)
    sin_cos = torch.stack([local[..., 2], local[..., 1]], dim=-1)
    sin_cos = sin_cos / torch.sqrt((sin_cos * sin_cos).sum(-1, keepdim=True) + _EPS)
    # Filled on the device: a list of Python numbers would be copied there from the host.
    sign = torch.ones_like(sin_cos)
    sign[..., PSI, :].fill_(-1.0)
    sin_cos = sin_cos * sign
    turned = 1.0 - 2.0 * lookup(chi_pi_periodic, aatype)
    turn = torch.cat([turned.new_ones(*turned.shape[:-1], 3), turned], dim=-1)
    return sin_cos, sin_cos * turn[..., None], mask


def _torsion_atoms(aatype: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The four atoms of each torsion, [..., N_res, 7, 4, 3], and whether all are there, [..., N_res, 7]."""
    previous_positions = torch.cat(
        [torch.zeros_like(positions[..., :1, :, :]), positions[..., :-1, :, :]], dim=-3
    )
    previous_mask = torch.cat([torch.zeros_like(mask[..., :1, :]), mask[..., :-1, :]], dim=-2)
    # Integer indices only: a list of integers would be copied to the device from the host.
    p, q = positions.unbind(-2), previous_positions.unbind(-2)
    torsions = ((q[CA], q[C], p[N], p[CA]), (q[C], p[N], p[CA], p[C]), (p[N], p[CA], p[C], p[O]))
    backbone = torch.stack([torch.stack(atoms, dim=-2) for atoms in torsions], dim=-3)
    has, had = mask.unbind(-1), previous_mask.unbind(-1)
    backbone_mask = torch.stack(
        [
            had[CA] * had[C] * has[N] * has[CA],
            had[C] * has[N] * has[CA] * has[C],
            has[N] * has[CA] * has[C] * has[O],
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
