"""Structural violations: peptide bonds, clashes and residue geometry (AF2 suppl. 1.9.11)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.geometry.residue_tables import constant_when_traced, lookup
from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.losses.reductions import pairwise_distance
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.protein import stereo_chemistry as chemistry
from openfold_opt.protein.residue_constants import restype_order

N, CA, C = 0, 1, 2
"""Slots of the backbone atoms in atom14."""
_EPS = 1e-6
_EPS_DISTANCE = 1e-10
_SULFUR_SLOT = 5
"""Slot of SG in cysteine.

Like the benchmark, this code ignores clashes between any two atoms in this slot, also if they are
not in cysteine.
"""


def violation_loss(
    outputs: ModelOutputs, batch: FeatureBatch, config: ViolationLossConfig
) -> Tensor:
    """Compute the sum of peptide bond terms (eq. 44, 45) and clashes per atom (eq. 46): [batch]."""
    positions = outputs.sm_positions[:, -1]
    clashes = between_residue_clashes(positions, batch, config) + within_residue_violations(
        positions, batch, config
    )
    num_atoms = batch.atom14_atom_exists.sum((-1, -2))
    return peptide_bond_loss(positions, batch, config) + clashes / (config.eps + num_atoms)


def peptide_bond_loss(
    positions: Tensor, batch: FeatureBatch, config: ViolationLossConfig
) -> Tensor:
    """Compute the error of the C-N length and the angles CA-C-N and C-N-CA beyond the tolerance.

    Args:
        positions: [batch, N_res, 14, 3] angstrom.

    Returns:
        [batch].
    """
    exists = batch.atom14_atom_exists
    is_bonded = (batch.residue_index[:, 1:] - batch.residue_index[:, :-1] == 1).to(exists.dtype)
    this_ca, this_c = positions[:, :-1, CA], positions[:, :-1, C]
    next_n, next_ca = positions[:, 1:, N], positions[:, 1:, CA]
    bond_mask = exists[:, :-1, C] * exists[:, 1:, N] * is_bonded
    c_to_n, length = _direction(this_c, next_n)
    c_to_ca, _ = _direction(this_c, this_ca)
    n_to_ca, _ = _direction(next_n, next_ca)

    is_proline = (batch.aatype[:, 1:] == restype_order["P"]).to(length.dtype)
    mean_length = _by_residue(chemistry.between_residue_bond_length_c_n, is_proline)
    stddev_length = _by_residue(chemistry.between_residue_bond_length_stddev_c_n, is_proline)
    factor = config.violation_tolerance_factor
    cos_at_c, _ = chemistry.between_residue_cos_angle_ca_c_n
    cos_at_n, stddev_at_n = chemistry.between_residue_cos_angle_c_n_ca
    # Like the benchmark, this code uses the standard deviation of the C-N length for this angle.
    stddev_at_c = chemistry.between_residue_bond_length_stddev_c_n[0]
    return (
        _excess(length, mean_length, factor * stddev_length, bond_mask)
        + _excess(
            (c_to_ca * c_to_n).sum(-1),
            cos_at_c,
            factor * stddev_at_c,
            bond_mask * exists[:, :-1, CA],
        )
        + _excess(
            (-c_to_n * n_to_ca).sum(-1),
            cos_at_n,
            factor * stddev_at_n,
            bond_mask * exists[:, 1:, CA],
        )
    )


def between_residue_clashes(
    positions: Tensor, batch: FeatureBatch, config: ViolationLossConfig
) -> Tensor:
    """Compute the overlap of atoms of different residues beyond the tolerance: [batch].

    Each pair counts twice, once for each atom.

    Args:
        positions: [batch, N_res, 14, 3] angstrom.
    """
    radii = lookup(chemistry.restype_atom14_van_der_waals_radius, batch.aatype).flatten(1)
    overlap = _OverlapSum.apply(
        positions.flatten(1, 2),
        radii - 0.5 * config.clash_overlap_tolerance_angstrom,
        _may_clash(batch),
    )
    return 2.0 * overlap


def _may_clash(batch: FeatureBatch) -> Tensor:
    """Return 1.0 for the pairs of atoms that must not overlap: [batch, N_res * 14, N_res * 14].

    The residue of the first atom has the lower index. Excluded are the bond C-N of consecutive
    residues, and pairs of two atoms in the slot of SG.
    """
    exists = batch.atom14_atom_exists
    offset = batch.residue_index[:, None, :] - batch.residue_index[:, :, None]
    is_before = (offset > 0).to(exists.dtype)
    pairs = exists[:, :, :, None, None] * is_before[:, :, None, :, None] * exists[:, None, None]
    pairs[:, :, C, :, N] *= (offset != 1).to(exists.dtype)
    pairs[:, :, _SULFUR_SLOT, :, _SULFUR_SLOT].zero_()
    return pairs.flatten(3, 4).flatten(1, 2)


class _OverlapSum(torch.autograd.Function):
    """Sum of relu(radius_i + radius_j - distance_ij) over the pairs of a mask.

    Saves one tensor of all pairs for the backward pass; PyTorch's operations save six.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, points: Tensor, radii: Tensor, mask: Tensor) -> Tensor:
        """Return [batch] for points [batch, n, 3], radii [batch, n] and mask [batch, n, n]."""
        distance = pairwise_distance(points, points, eps=_EPS_DISTANCE)
        overlap = radii[:, :, None] + radii[:, None] - distance
        overlap = overlap.relu_().mul_(mask)
        ctx.save_for_backward(points, (overlap > 0).to(points.dtype).div_(distance))
        return overlap.sum((-1, -2))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the points. That of a distance is a unit vector."""
        points, inverse_distance = ctx.saved_tensors
        columns = []
        for x in points.unbind(-1):
            pull = (x[:, :, None] - x[:, None]).mul_(inverse_distance)
            columns.append(pull.sum(1) - pull.sum(2))
        return torch.stack(columns, -1) * gradient[:, None, None], None, None


def within_residue_violations(
    positions: Tensor, batch: FeatureBatch, config: ViolationLossConfig
) -> Tensor:
    """Compute the deviation from the distance bounds within residues: [batch].

    The sum is over ordered pairs, and each pair counts twice, once for each atom.

    Args:
        positions: [batch, N_res, 14, 3] angstrom.
    """
    bounds = _distance_bounds(
        config.clash_overlap_tolerance_angstrom, config.violation_tolerance_factor
    )
    lower, upper = (lookup(bound, batch.aatype) for bound in bounds)
    exists = batch.atom14_atom_exists
    is_other = 1.0 - torch.eye(14, device=exists.device)
    mask = exists[..., :, None] * exists[..., None, :] * is_other
    distance = pairwise_distance(positions, positions, eps=_EPS_DISTANCE)
    error = mask * (torch.relu(lower - distance) + torch.relu(distance - upper))
    return 2.0 * error.sum((-1, -2, -3))


@constant_when_traced
def _distance_bounds(
    overlap_tolerance_angstrom: float, bond_length_tolerance_factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return make_atom14_dists_bounds. In compiled code it is a constant."""
    return chemistry.make_atom14_dists_bounds(
        overlap_tolerance_angstrom=overlap_tolerance_angstrom,
        bond_length_tolerance_factor=bond_length_tolerance_factor,
    )


def _by_residue(values: tuple[float, float], is_proline: Tensor) -> Tensor:
    """Return values[1] if the next residue is proline and values[0] otherwise."""
    return values[0] + (values[1] - values[0]) * is_proline


def _direction(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the unit vector from start to end, [..., 3], and the distance, [...]."""
    offset = end - start
    distance = torch.sqrt((offset * offset).sum(-1) + _EPS)
    return offset / distance[..., None], distance


def _excess(value: Tensor, mean: Tensor | float, tolerance: Tensor | float, mask: Tensor) -> Tensor:
    """Return the deviation from the mean beyond the tolerance, averaged over the mask: [batch]."""
    error = torch.sqrt((value - mean) ** 2 + _EPS)
    return (mask * torch.relu(error - tolerance)).sum(-1) / (mask.sum(-1) + _EPS)
