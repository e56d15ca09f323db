"""Invariant point attention without a tensor of all differences between points."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.interface import InvariantPointInputs
from openfold_opt.kernels.reference.invariant_point_attention import attend, flat_points


def invariant_point_attention(
    inputs: InvariantPointInputs,
    *,
    mask: Tensor,
    mask_inf: float,
    query_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.invariant_point_attention; its docstring has the shapes."""
    distances = squared_distances(*flat_points(inputs))
    masks = (mask if query_mask is None else query_mask, mask)
    return attend(inputs, distances, masks, mask_inf=mask_inf)


def squared_distances(q: Tensor, k: Tensor) -> Tensor:
    """Return sum_d (q_id - k_jd)^2 [..., N_i, N_j] of q [..., N_i, d] and k [..., N_j, d].

    Adds one coordinate at a time. The shorter |q|^2 + |k|^2 - 2 q k loses precision for nearby
    points.
    """
    return _SquaredDistances.apply(q, k)


class _SquaredDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor) -> Tensor:
        ctx.save_for_backward(q, k)
        rows, columns = (
            q.movedim(-1, 0).unsqueeze(-1).contiguous(),
            k.movedim(-1, 0).unsqueeze(-2).contiguous(),
        )
        total = (rows[0] - columns[0]).square_()
        for row, column in zip(rows[1:], columns[1:]):
            difference = row - column
            total.addcmul_(difference, difference)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_total: Tensor) -> tuple[Tensor, Tensor]:
        q, k = ctx.saved_tensors
        # The gradient depends only on differences, which are more precise near the origin.
        center = k.mean(-2, keepdim=True)
        q, k = q - center, k - center
        d_q = q * d_total.sum(-1, keepdim=True) - torch.matmul(d_total, k)
        d_k = k * d_total.sum(-2).unsqueeze(-1) - torch.matmul(d_total.mT, q)
        return d_q.mul_(2.0), d_k.mul_(2.0)
