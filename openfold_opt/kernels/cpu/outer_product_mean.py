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
    if not torch.is_grad_enabled():
        return _without_gradient(z, sides, projection, norm)
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


_ROWS, _COLUMNS = 16, 64
"""Residues i and j of a tile of the products without gradient; the tile fits the caches."""


def _without_gradient(
    z: Tensor, sides: tuple[Tensor, Tensor], projection: LinearWeights, norm: Tensor
) -> Tensor:
    """Compute the result with large matrix products.

    Their layout [N_i, c, N_j, c] is changed to [N_i, N_j, c, c] while a tile is in the cache. This
    is faster than products that yield the second layout, but the backward pass needs those.
    """
    a, b = sides
    (weight, bias), c = projection, a.shape[-1]
    result = torch.empty_like(z, memory_format=torch.contiguous_format)
    for sample in range(len(z)):
        side_b = b[sample].flatten(1).contiguous()
        for i in range(0, a.shape[2], _ROWS):
            rows = a[sample, :, i : i + _ROWS].flatten(1).t().contiguous()
            for j in range(0, b.shape[2], _COLUMNS):
                outer = torch.mm(rows, side_b[:, j * c : (j + _COLUMNS) * c])
                outer = outer.view(len(rows) // c, c, -1, c).transpose(1, 2)
                block = z[sample, i : i + _ROWS, j : j + _COLUMNS]
                total = torch.mm(outer.reshape(-1, c * c), weight.t()).view(block.shape)
                divisor = norm[sample, i : i + _ROWS, j : j + _COLUMNS]
                total = (total + bias) / divisor
                torch.add(block, total, out=result[sample, i : i + _ROWS, j : j + _COLUMNS])
    return result


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
