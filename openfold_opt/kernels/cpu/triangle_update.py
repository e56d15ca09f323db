"""The updates of the triangle multiplications: a product over edges with channels in front, then pieces of rows with channels behind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import Scratch, add_product, piece_length, sums_like
from openfold_opt.kernels.cpu.triangle_edges import edges_again

_aten = torch.ops.aten

Pair = tuple[Tensor, Tensor]


def triangle_update(
    z: Tensor, edges: tuple[Tensor, Tensor, Tensor], norm: Pair, output: Pair, dropout: Tensor | None, *, is_outgoing: bool, eps: float
) -> Tensor:
    """kernels/reference/triangle.py, which has shapes and meaning; keeps its inputs only and computes the rest again.

    Edges that come from triangle_edges are computed again too.
    """
    return _TriangleUpdate.apply(z, *edges, *norm, *output, dropout, (is_outgoing, eps))


class _TriangleUpdate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z, a, b, gate, gamma, beta, weight, bias, dropout, sizes) -> Tensor:
        ctx.edges_again = edges_again((a, b, gate))
        edges = (a, b, gate) if ctx.edges_again is None else ()
        ctx.save_for_backward(gamma, beta, weight, bias, dropout, *edges)
        ctx.sizes = is_outgoing, eps = sizes
        product, weight_t = _product(a, b, is_outgoing), weight.t()
        result, scratch = torch.empty_like(z, memory_format=torch.contiguous_format), Scratch(weight)
        for some_z, some_product, some_gate, some_result, kept in _pieces_of(dropout, weight, z, product, gate, result):
            x = _flat(normalise(some_product, (gamma, beta), eps)[0]).to(weight.dtype)
            update = scratch.take("update", *some_z.shape)
            torch.addmm(bias, x, weight_t, out=_flat(update))
            opened = torch.sigmoid(some_gate, out=scratch.take("opened", *some_gate.shape))
            if kept is None:
                factor = opened.to(z.dtype)
            else:
                update.mul_(opened)
                factor = kept.to(z.dtype)
            torch.addcmul(some_z, update.to(z.dtype), factor, out=some_result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        gamma, beta, weight, bias, dropout, *edges = ctx.saved_tensors
        a, b, gate = edges or ctx.edges_again.compute()
        is_outgoing, eps = ctx.sizes
        product, weight_t, scratch = _product(a, b, is_outgoing), weight.t(), Scratch(weight)
        d_product, d_gate = torch.empty_like(product), torch.empty_like(gate, memory_format=torch.contiguous_format)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for some, gate_rows, d_some, d_gate_rows, d_rows, kept in _pieces_of(dropout, weight, product, gate, d_product, d_gate, d_result):
            x, *statistics = normalise(some, (gamma, beta), eps)
            x = _flat(x).to(weight.dtype)
            update = torch.addmm(bias, x, weight_t, out=scratch.take("update", len(x), len(weight)))
            opened = torch.sigmoid(_flat(gate_rows), out=scratch.take("opened", *update.shape))
            d_gated = _flat(d_rows if kept is None else d_rows * kept).to(weight.dtype)
            _aten.sigmoid_backward.grad_input(update.mul_(d_gated), opened, grad_input=_flat(d_gate_rows))
            d_update = torch.mul(d_gated, opened, out=opened)
            add_product(d_weight, d_update.t(), x)
            d_bias.add_(d_update.sum(0))
            d_x = torch.mm(d_update, weight, out=scratch.take("d_x", *x.shape)).view(some.shape)
            d_some.copy_(normalise_backward(d_x, some, (gamma, beta), statistics, (d_gamma, d_beta)))
        d_product = _in_front(d_product)
        if is_outgoing:
            d_a, d_b = torch.matmul(d_product, b), torch.matmul(d_product.mT, a)
        else:
            d_a, d_b = torch.matmul(b, d_product.mT), torch.matmul(a, d_product)
        return d_result, d_a, d_b, d_gate, d_gamma, d_beta, d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None


def _product(a: Tensor, b: Tensor, is_outgoing: bool) -> Tensor:
    """[batch, N_i, N_j, c]"""
    return _behind(torch.matmul(a, b.mT) if is_outgoing else torch.matmul(a.mT, b))


def _pieces_of(dropout: Tensor | None, weight: Tensor, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Some residues i of a sample: their part of every tensor [batch, N_i, N_j, c], and what dropout keeps of them.

    dropout: [batch, 1 or N_i, N_j, c_z], 1 is broadcast.
    """
    length = piece_length(tensors[0].shape[2] * max(weight.shape) * weight.element_size())
    for number, sample in enumerate(zip(*tensors)):
        masks = itertools.repeat(None if dropout is None else dropout[number])
        if dropout is not None and dropout.shape[1] != 1:
            masks = dropout[number].split(length)
        yield from zip(*(x.split(length) for x in sample), masks)


def _flat(x: Tensor) -> Tensor:
    """[n, N_j, c] -> [n * N_j, c]"""
    return x.flatten(0, 1)


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
