"""Outer product mean in tiles of residues i: the [N_i, N_j, c, c] tensor is never materialized.

The outer products are [N_i, N_j, c_b, c_a], the layout that a matrix product yields. The channels
of the projection are swapped instead of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.tiles import add_product, sums_like, tiles
from openfold_opt.kernels.interface import LinearWeights


def outer_product_mean(
    z: Tensor, sides: tuple[Tensor, Tensor], projection: LinearWeights, norm: Tensor
) -> Tensor:
    """Compute kernels.reference.outer_product_mean; its docstring has the shapes.

    Saves only its inputs for the backward pass.
    """
    return _OuterProductMean.apply(z, *sides, *projection, norm)


class _OuterProductMean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        z: Tensor,
        a: Tensor,
        b: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: Tensor,
    ) -> Tensor:
        a, b = a.transpose(1, 2).contiguous(), b.flatten(2).contiguous()
        ctx.save_for_backward(a, b, weight, norm)
        projection = _swap_channels(weight, a.shape[-1]).t()
        result = torch.empty_like(z, memory_format=torch.contiguous_format)
        for sample, rows in _tiles_of(a, b):
            total = torch.mm(_outer(a[sample, rows], b[sample]), projection)
            residual = z[sample, rows].contiguous()
            divisor = norm[sample, rows].float().expand(*residual.shape[:2], 1).contiguous()
            call("add_residual", total, bias, divisor, residual, result[sample, rows], *total.shape)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        a, b, weight, norm = ctx.saved_tensors
        c = a.shape[-1]
        projection = _swap_channels(weight, c)
        d_a = torch.empty_like(a)
        d_b, d_projection, d_bias = sums_like(b, projection, weight[:, 0])
        for sample, rows in _tiles_of(a, b):
            d_mean = (d_result[sample, rows] / norm[sample, rows]).flatten(0, 1).to(weight.dtype)
            d_bias.add_(d_mean.sum(0))
            add_product(d_projection, d_mean.t(), _outer(a[sample, rows], b[sample]))
            # Shape [n, N_j * c_b, c_a].
            d_outer = torch.mm(d_mean, projection).view(-1, b.shape[-1], c)
            torch.bmm(b[sample].expand(len(d_outer), -1, -1), d_outer, out=d_a[sample, rows])
            for a_row, d_row in zip(a[sample, rows], d_outer):
                add_product(d_b[sample], a_row, d_row.t())
        d_b, d_weight, d_bias = (
            x.to(weight.dtype)
            for x in (d_b.unflatten(-1, (-1, c)), _swap_channels(d_projection, c), d_bias)
        )
        return d_result, d_a.transpose(1, 2), d_b, d_weight, d_bias, None


def _tiles_of(a: Tensor, b: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield sample and residues i of each tile of a [batch, N_i, N_seq, c].

    b: [batch, N_seq, N_j * c]
    """
    for sample in range(len(a)):
        for rows in tiles(a.shape[1], b.shape[-1] * a.shape[-1] * b.element_size()):
            yield sample, rows


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return the outer products [n * N_j, c_b * c_a] of a [n, N_seq, c] and b [N_seq, N_j * c]."""
    return torch.bmm(b.t().expand(len(a), -1, -1), a).view(-1, a.shape[-1] ** 2)


def _swap_channels(weight: Tensor, c: int) -> Tensor:
    """Return a copy of weight [c_z, c * c] with its two channel dims swapped."""
    return weight.unflatten(-1, (c, c)).transpose(1, 2).flatten(1)
