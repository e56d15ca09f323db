"""Layer normalization followed by a linear projection. Only its input is saved."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import (
    RecomputableNorm,
    as_rows,
    normalize,
    normalize_backward,
)
from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.tiles import Scratch, add_product, sums_like, tile_length
from openfold_opt.kernels.interface import LinearWeights, NormWeights


def projected_norm(
    x: Tensor, norm: NormWeights, projection: LinearWeights, *, only_projection: bool = False
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute kernels.reference.projected_norm; its docstring has the shapes."""
    normalized, projected = _ProjectedNorm.apply(x, norm.weight, norm.bias, *projection, norm.eps)
    return x, None if only_projection else normalized, projected


class _ProjectedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
    ):
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        rows = as_rows(result)
        normalize(as_rows(x), (gamma, beta), eps, rows)
        projected = torch.mm(rows.to(weight.dtype), weight.t())
        if bias is not None:
            call("add_to_rows", projected, bias, *projected.shape)
        ctx.save_for_backward(x, gamma, beta, weight)
        ctx.recompute, ctx.has_bias = RecomputableNorm(ctx, (result,), eps), bias is not None
        ctx.set_materialize_grads(False)
        return result, projected.view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, d_result: Tensor | None, d_projected: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, gamma, beta, weight = ctx.recompute.release()
        if d_projected is None:
            d_projected = weight.new_zeros(*x.shape[:-1], len(weight))
        d_x, scratch = torch.empty_like(x, memory_format=torch.contiguous_format), Scratch(weight)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, weight[:, 0])
        rows, d_rows, d_x_rows = as_rows(x), as_rows(d_projected), as_rows(d_x)
        parts = [rows, d_rows, d_x_rows, *([] if d_result is None else [as_rows(d_result)])]
        for x_tile, d_tile, d_x_tile, *d_normalized in zip(
            *(part.split(tile_length(x.shape[-1] * x.element_size())) for part in parts)
        ):
            normalized = scratch.take("normalized", *x_tile.shape, dtype=x_tile.dtype)
            statistics = normalize(x_tile, (gamma, beta), ctx.recompute.eps, normalized)
            add_product(d_weight, d_tile.t(), normalized.to(weight.dtype))
            total = torch.mm(d_tile, weight, out=scratch.take("d_normalized", *x_tile.shape)).to(
                x_tile.dtype
            )
            for d in d_normalized:
                total.add_(d)
            normalize_backward(total, x_tile, statistics, (gamma, d_gamma, d_beta), d_x_tile)
        if ctx.has_bias:
            call("add_column_sums", d_rows, d_bias, *d_rows.shape)
        d_bias = d_bias.to(weight.dtype) if ctx.has_bias else None
        return d_x, d_gamma, d_beta, d_weight.to(weight.dtype), d_bias, None
