"""Updates of the triangle multiplications.

The product over edges is normalized with channels in the first dim and projected in tiles of rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.recomputation import recomputable_of
from openfold_opt.kernels.cpu.tiles import Scratch, add_product, sums_like, tiles
from openfold_opt.kernels.cpu.triangle_edges import RecomputableEdges
from openfold_opt.kernels.interface import LinearWeights, NormWeights

Pair = tuple[Tensor, Tensor]


def triangle_update(
    z: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    norm: NormWeights,
    output: LinearWeights,
    dropout: Tensor | None,
    *,
    is_outgoing: bool,
) -> Tensor:
    """Compute kernels.reference.triangle_update; its docstring has the shapes.

    Saves only its inputs for the backward pass and recomputes the rest. Edges that are the results
    of triangle_edges are recomputed too.
    """
    sizes = (is_outgoing, norm.eps)
    return _TriangleUpdate.apply(z, *edges, norm.weight, norm.bias, *output, dropout, sizes)


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
        for sample, tile, columns in _tiles_of(product, weight):
            product_tile = product[sample].flatten(1)[:, columns]
            x, _ = _normalize(product_tile, ((gamma, beta), eps), scratch)
            update = _project(x, weight, scratch)
            z_rows, gate_rows, result_rows = (part[sample, tile] for part in (z, gate, result))
            factor, num_factors = _factor(dropout, sample, tile)
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
        # Each tile of the product is replaced by its gradient.
        product, scratch = _product(a, b, is_outgoing), Scratch(weight)
        gate, dropout, d_rows = (
            gate.contiguous(),
            _as_factor(dropout, d_result),
            d_result.contiguous(),
        )
        d_gate = torch.empty_like(gate)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for sample, tile, columns in _tiles_of(product, weight):
            product_tile = product[sample].flatten(1)[:, columns]
            x, statistics = _normalize(product_tile, ((gamma, beta), eps), scratch)
            update = _project(x, weight, scratch)
            gate_rows, d_result_rows, d_gate_rows = (
                part[sample, tile] for part in (gate, d_rows, d_gate)
            )
            factor, num_factors = _factor(dropout, sample, tile)
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
            # update now holds its gradient.
            add_product(d_weight, update.t(), x.t())
            call("add_column_sums", update, d_bias, *update.shape)
            d_x = torch.mm(weight.t(), update.t(), out=scratch.take("d_x", *x.shape))
            _normalize_backward(d_x, product_tile, statistics, (gamma, d_gamma, d_beta), scratch)
        d_low = d_weight.to(weight.dtype), d_bias.to(bias.dtype)
        d_edges = _product_backward(product, a, b, is_outgoing)
        return d_result, *d_edges, d_gate, d_gamma, d_beta, *d_low, None, None


def _product(a: Tensor, b: Tensor, is_outgoing: bool) -> Tensor:
    """Return the product over the third residue [batch, c, N_i, N_j]."""
    return torch.matmul(a, b.mT) if is_outgoing else torch.matmul(a.mT, b)


def _product_backward(d_product: Tensor, a: Tensor, b: Tensor, is_outgoing: bool) -> Pair:
    """Return the gradients of a and b."""
    if is_outgoing:
        return torch.matmul(d_product, b), torch.matmul(d_product.mT, a)
    return torch.matmul(b, d_product.mT), torch.matmul(a, d_product)


def _tiles_of(product: Tensor, weight: Tensor) -> Iterator[tuple[int, slice, slice]]:
    """Yield sample, residues i, and their columns in [c, N_i * N_j] of each tile."""
    batch, _, num_i, num_j = product.shape
    for sample in range(batch):
        for tile in tiles(num_i, num_j * max(weight.shape) * weight.element_size()):
            yield sample, tile, slice(tile.start * num_j, tile.stop * num_j)


def _normalize(product: Tensor, norm: tuple[Pair, float], scratch: Scratch) -> Pair:
    """Return columns [c, n] of a product, normalized, and their statistics [2, n]."""
    parameters, eps = norm
    x = scratch.take("x", *product.shape)
    statistics = scratch.take("statistics", 2, x.shape[1], dtype=torch.float32)
    call("norm_columns", product, *parameters, x, statistics, eps, product.stride(0), *x.shape)
    return x, statistics


def _normalize_backward(
    d_x: Tensor,
    product: Tensor,
    statistics: Tensor,
    gamma_and_sums: tuple[Tensor, Tensor, Tensor],
    scratch: Scratch,
) -> None:
    """Replace columns [c, n] of a product by their gradient.

    gamma_and_sums: weight of the normalization, and the accumulated gradients of its weight and
        bias, [c] float32 each, to which those of these columns are added.
    """
    sums = scratch.take("sums", *statistics.shape, dtype=torch.float32)
    tensors = (d_x, product, statistics, *gamma_and_sums, sums)
    call("norm_columns_backward", *tensors, product.stride(0), *d_x.shape)


def _project(x: Tensor, weight: Tensor, scratch: Scratch) -> Tensor:
    """Return the projection [n, c_z] of x [c, n] without its bias."""
    update = scratch.take("update", x.shape[1], len(weight))
    return torch.mm(x.t(), weight.t(), out=update)


def _as_factor(dropout: Tensor | None, z: Tensor) -> Tensor | None:
    """Return a mask that broadcasts to z as [batch, N_i or 1, N_j, c_z] float32."""
    return (
        None if dropout is None else dropout.float().expand(len(z), -1, *z.shape[2:]).contiguous()
    )


def _factor(dropout: Tensor | None, sample: int, tile: slice) -> tuple[Tensor | None, int]:
    """Return the mask [n or 1, N_j, c_z] of residues i of a sample, and its first size."""
    if dropout is None:
        return None, 1
    factor = dropout[sample] if dropout.shape[1] == 1 else dropout[sample, tile]
    return factor, len(factor)
