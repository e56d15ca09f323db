"""The triangle multiplications by pieces of rows, with two-dimensional transpositions between channels behind and in front."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import add_product, pieces, sums_like

_aten = torch.ops.aten

Pair = tuple[Tensor, Tensor]


def triangle_edges(
    z: Tensor, norm: Pair, projection: Pair, mask: Tensor, *, c_hidden: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """kernels/reference/triangle.py, which has shapes and meaning; keeps its inputs only and computes the rest again."""
    return _TriangleEdges.apply(z, *norm, *projection, mask, (c_hidden, eps))


def triangle_update(
    z: Tensor, edges: tuple[Tensor, Tensor, Tensor], norm: Pair, output: Pair, dropout: Tensor | None, *, is_outgoing: bool, eps: float
) -> Tensor:
    """kernels/reference/triangle.py, which has shapes and meaning; keeps its inputs only and computes the rest again."""
    return _TriangleUpdate.apply(z, *edges, *norm, *output, dropout, (is_outgoing, eps))


class _TriangleEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z, gamma, beta, weight, bias, mask, sizes) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(z, gamma, beta, weight, bias, mask)
        ctx.sizes = c_hidden, eps = sizes
        rows, mask_rows = _as_rows(z), _as_rows(mask.unsqueeze(-1))
        c_gate = weight.shape[0] - 4 * c_hidden
        edges = [rows.new_empty(len(rows), c_hidden, dtype=weight.dtype) for _ in range(2)]
        output_gate = rows.new_empty(len(rows), c_gate, dtype=weight.dtype)
        for piece in _pieces(rows, weight):
            x, _, _ = normalise(rows[piece], (gamma, beta), eps)
            *values, gate_a, gate_b, output_gate[piece] = torch.addmm(bias, x.to(weight.dtype), weight.t()).split((c_hidden,) * 4 + (c_gate,), 1)
            for target, value, gate in zip(edges, values, (gate_a, gate_b)):
                torch.mul(torch.sigmoid(gate).mul_(mask_rows[piece]), value, out=target[piece])
        a, b = (_in_front(target.view(*z.shape[:-1], c_hidden)) for target in edges)
        return a, b, output_gate.view(*z.shape[:-1], c_gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_a: Tensor, d_b: Tensor, d_gate: Tensor) -> tuple[Tensor | None, ...]:
        z, gamma, beta, weight, bias, mask = ctx.saved_tensors
        c_hidden, eps = ctx.sizes
        rows, mask_rows, d_gate = _as_rows(z), _as_rows(mask.unsqueeze(-1)), _as_rows(d_gate)
        d_edges = [_as_rows(_behind(d)) for d in (d_a, d_b)]
        d_z = torch.empty_like(rows)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for piece in _pieces(rows, weight):
            x, *statistics = normalise(rows[piece], (gamma, beta), eps)
            x = x.to(weight.dtype)
            projected = torch.addmm(bias, x, weight.t())
            d_projected = torch.empty_like(projected)
            d_projected[:, 4 * c_hidden :] = d_gate[piece]
            for side in range(2):
                value, gate = (slice((side + part) * c_hidden, (side + part + 1) * c_hidden) for part in (0, 2))
                opened = torch.sigmoid(projected[:, gate])
                d_side = d_edges[side][piece].mul_(mask_rows[piece])
                torch.mul(d_side, opened, out=d_projected[:, value])
                _aten.sigmoid_backward.grad_input(d_side.mul_(projected[:, value]), opened, grad_input=d_projected[:, gate])
            add_product(d_weight, d_projected.t(), x)
            d_bias.add_(d_projected.sum(0))
            d_x = torch.mm(d_projected, weight)
            d_z[piece] = normalise_backward(d_x, rows[piece], (gamma, beta), statistics, (d_gamma, d_beta))
        return d_z.view(z.shape), d_gamma, d_beta, d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None


class _TriangleUpdate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z, a, b, gate, gamma, beta, weight, bias, dropout, sizes) -> Tensor:
        ctx.save_for_backward(a, b, gate, gamma, beta, weight, bias, dropout)
        ctx.sizes = is_outgoing, eps = sizes
        product = _as_rows(_product(a, b, is_outgoing))
        result, gate_rows = torch.empty_like(z, memory_format=torch.contiguous_format), _as_rows(gate)
        for piece in _pieces(product, weight):
            x, _, _ = normalise(product[piece], (gamma, beta), eps)
            update = torch.addmm(bias, x.to(weight.dtype), weight.t())
            torch.mul(update, torch.sigmoid(gate_rows[piece]), out=_as_rows(result)[piece])
        if dropout is not None:
            result.mul_(dropout)
        return result.add_(z)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        a, b, gate, gamma, beta, weight, bias, dropout = ctx.saved_tensors
        is_outgoing, eps = ctx.sizes
        product, gate_rows = _as_rows(_product(a, b, is_outgoing)), _as_rows(gate)
        d_gated = _as_rows((d_result if dropout is None else d_result * dropout).to(gate.dtype))
        d_product, d_gate = torch.empty_like(product), torch.empty_like(gate_rows)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for piece in _pieces(product, weight):
            x, *statistics = normalise(product[piece], (gamma, beta), eps)
            x = x.to(weight.dtype)
            update, opened = torch.addmm(bias, x, weight.t()), torch.sigmoid(gate_rows[piece])
            d_update = d_gated[piece] * opened
            d_gate[piece] = _aten.sigmoid_backward(update.mul_(d_gated[piece]), opened)
            add_product(d_weight, d_update.t(), x)
            d_bias.add_(d_update.sum(0))
            d_x = torch.mm(d_update, weight)
            d_product[piece] = normalise_backward(d_x, product[piece], (gamma, beta), statistics, (d_gamma, d_beta))
        d_product = _in_front(d_product.view(*d_result.shape[:-1], a.shape[1]))
        if is_outgoing:
            d_a, d_b = torch.matmul(d_product, b), torch.matmul(d_product.mT, a)
        else:
            d_a, d_b = torch.matmul(b, d_product.mT), torch.matmul(a, d_product)
        return d_result, d_a, d_b, d_gate.view(gate.shape), d_gamma, d_beta, d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None


def _product(a: Tensor, b: Tensor, is_outgoing: bool) -> Tensor:
    """[batch, N_i, N_j, c]"""
    return _behind(torch.matmul(a, b.mT) if is_outgoing else torch.matmul(a.mT, b))


def _as_rows(x: Tensor) -> Tensor:
    """[..., c] -> [rows, c]"""
    return x.reshape(-1, x.shape[-1])


def _in_front(x: Tensor) -> Tensor:
    """[batch, N_1, N_2, c] -> [batch, c, N_1, N_2], a copy. PyTorch transposes two dims by blocks, four dims element by element."""
    return _transpose_each(x.flatten(1, 2)).unflatten(-1, x.shape[1:3])


def _behind(x: Tensor) -> Tensor:
    """[batch, c, N_1, N_2] -> [batch, N_1, N_2, c], a copy."""
    return _transpose_each(x.flatten(2, 3)).unflatten(1, x.shape[2:4])


def _transpose_each(x: Tensor) -> Tensor:
    transposed = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for source, target in zip(x.contiguous(), transposed):
        target.copy_(source.t())
    return transposed


def _pieces(rows: Tensor, weight: Tensor) -> Iterator[slice]:
    return pieces(rows.shape[0], weight.shape[0] * weight.element_size())
