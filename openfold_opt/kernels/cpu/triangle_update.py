"""The updates of the triangle multiplications: a product over edges, normalized with its channels in front, and projected by pieces of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.recomputation import recomputable_of
from openfold_opt.kernels.cpu.tiles import Scratch, add_product, sums_like, tiles
from openfold_opt.kernels.cpu.triangle_edges import RecomputableEdges

Pair = tuple[Tensor, Tensor]


def triangle_update(
    z: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    norm: Pair,
    output: Pair,
    dropout: Tensor | None,
    *,
    is_outgoing: bool,
    eps: float,
) -> Tensor:
    """kernels/reference/triangle.py, which has shapes and meaning; keeps its inputs only and computes the rest again.

    Edges that come from triangle_edges are computed again too.
    """
    return _TriangleUpdate.apply(z, *edges, *norm, *output, dropout, (is_outgoing, eps))


class _TriangleUpdate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, z, a, b, gate, gamma, beta, weight, bias, dropout, sizes
    ) -> Tensor:
        ctx.recomputable_edges = recomputable_of(RecomputableEdges, (a, b, gate))
        edges = (a, b, gate) if ctx.recomputable_edges is None else ()
        ctx.save_for_backward(gamma, beta, weight, bias, dropout, *edges)
        ctx.sizes = is_outgoing, eps = sizes
        product, z, gate, dropout = (
            _product(a, b, is_outgoing),
            z.contiguous(),
            gate.contiguous(),
            _as_factor(dropout, z),
        )
        result, scratch = torch.empty_like(z), Scratch(weight)
        for sample, some, columns in _tiles_of(product, weight):
            x, _ = _normalized(
                product[sample].flatten(1)[:, columns], ((gamma, beta), eps), scratch
            )
            update = torch.mm(
                x.t(), weight.t(), out=scratch.take("update", x.shape[1], len(weight))
            )
            z_rows, gate_rows, result_rows = (part[sample, some] for part in (z, gate, result))
            factor, num_factors = _factor(dropout, sample, some)
            call(
                "gated_residual",
                update,
                bias,
                gate_rows,
                factor,
                z_rows,
                result_rows,
                num_factors,
                *z_rows.shape,
            )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        gamma, beta, weight, bias, dropout, *edges = ctx.saved_tensors
        a, b, gate = edges or ctx.recomputable_edges.compute()
        is_outgoing, eps = ctx.sizes
        # becomes its gradient, piece by piece
        product, scratch = _product(a, b, is_outgoing), Scratch(weight)
        gate, dropout, d_rows = (
            gate.contiguous(),
            _as_factor(dropout, d_result),
            d_result.contiguous(),
        )
        d_gate = torch.empty_like(gate)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for sample, some, columns in _tiles_of(product, weight):
            some_product = product[sample].flatten(1)[:, columns]
            x, statistics = _normalized(some_product, ((gamma, beta), eps), scratch)
            update = torch.mm(
                x.t(), weight.t(), out=scratch.take("update", x.shape[1], len(weight))
            )
            gate_rows, d_result_rows, d_gate_rows = (
                part[sample, some] for part in (gate, d_rows, d_gate)
            )
            factor, num_factors = _factor(dropout, sample, some)
            call(
                "gated_residual_backward",
                update,
                bias,
                gate_rows,
                factor,
                d_result_rows,
                d_gate_rows,
                num_factors,
                *gate_rows.shape,
            )
            # what was the update has become its gradient
            add_product(d_weight, update.t(), x.t())
            call("add_column_sums", update, d_bias, *update.shape)
            d_x = torch.mm(weight.t(), update.t(), out=scratch.take("d_x", *x.shape))
            sums = scratch.take("sums", *statistics.shape, dtype=torch.float32)
            call(
                "norm_columns_backward",
                d_x,
                some_product,
                statistics,
                gamma,
                d_gamma,
                d_beta,
                sums,
                some_product.stride(0),
                *x.shape,
            )
        if is_outgoing:
            d_a, d_b = torch.matmul(product, b), torch.matmul(product.mT, a)
        else:
            d_a, d_b = torch.matmul(b, product.mT), torch.matmul(a, product)
        return (
            d_result,
            d_a,
            d_b,
            d_gate,
            d_gamma,
            d_beta,
            d_weight.to(weight.dtype),
            d_bias.to(bias.dtype),
            None,
            None,
        )


def _product(a: Tensor, b: Tensor, is_outgoing: bool) -> Tensor:
    """[batch, c, N_i, N_j]"""
    return torch.matmul(a, b.mT) if is_outgoing else torch.matmul(a.mT, b)


def _tiles_of(product: Tensor, weight: Tensor) -> Iterator[tuple[int, slice, slice]]:
    """Sample, some residues i, and the columns that they are in [c, N_i * N_j]."""
    batch, _, num_i, num_j = product.shape
    for sample in range(batch):
        for some in tiles(num_i, num_j * max(weight.shape) * weight.element_size()):
            yield sample, some, slice(some.start * num_j, some.stop * num_j)


def _normalized(product: Tensor, norm: tuple[Pair, float], scratch: Scratch) -> Pair:
    """Columns [c, n] of a product, normalized, and their statistics."""
    parameters, eps = norm
    x = scratch.take("x", *product.shape)
    statistics = scratch.take("statistics", 2, x.shape[1], dtype=torch.float32)
    call("norm_columns", product, *parameters, x, statistics, eps, product.stride(0), *x.shape)
    return x, statistics


def _as_factor(dropout: Tensor | None, z: Tensor) -> Tensor | None:
    """[batch, N_i or 1, N_j, c_z] of a mask that broadcasts to z."""
    return (
        None if dropout is None else dropout.float().expand(len(z), -1, *z.shape[2:]).contiguous()
    )


def _factor(dropout: Tensor | None, sample: int, some: slice) -> tuple[Tensor | None, int]:
    """What some residues i of a sample are multiplied with: [n or 1, N_j, c_z], and n or 1."""
    if dropout is None:
        return None, 1
    factor = dropout[sample] if dropout.shape[1] == 1 else dropout[sample, some]
    return factor, len(factor)
