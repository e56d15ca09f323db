"""The updates of the triangle multiplications: a product over edges with channels in front, then pieces of rows with channels behind."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import Scratch, add_product, pieces, sums_like
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
        product = _product(a, b, is_outgoing)
        result, scratch = torch.empty_like(z, memory_format=torch.contiguous_format), Scratch(weight)
        for place in _places(product, weight):
            x = _flat(normalise(product[place], (gamma, beta), eps)[0]).to(weight.dtype)
            update = torch.addmm(bias, x, weight.t(), out=scratch.take("update", len(x), len(weight))).view(z[place].shape)
            opened = torch.sigmoid(gate[place], out=scratch.take("opened", *gate[place].shape))
            if dropout is None:
                factor = opened.to(z.dtype)
            else:
                update.mul_(opened)
                factor = _dropout_of(dropout, place).to(z.dtype)
            torch.addcmul(z[place], update.to(z.dtype), factor, out=result[place])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        gamma, beta, weight, bias, dropout, *edges = ctx.saved_tensors
        a, b, gate = edges or ctx.edges_again.compute()
        is_outgoing, eps = ctx.sizes
        product, scratch = _product(a, b, is_outgoing), Scratch(weight)
        d_product, d_gate = torch.empty_like(product), torch.empty_like(gate, memory_format=torch.contiguous_format)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for place in _places(product, weight):
            x, *statistics = normalise(product[place], (gamma, beta), eps)
            x = _flat(x).to(weight.dtype)
            update = torch.addmm(bias, x, weight.t(), out=scratch.take("update", len(x), len(weight)))
            opened = _flat(torch.sigmoid(gate[place], out=scratch.take("opened", *gate[place].shape)))
            d_gated = d_result[place] if dropout is None else d_result[place] * _dropout_of(dropout, place)
            d_gated = _flat(d_gated).to(weight.dtype)
            _aten.sigmoid_backward.grad_input(update.mul_(d_gated), opened, grad_input=_flat(d_gate[place]))
            d_update = torch.mul(d_gated, opened, out=opened)
            add_product(d_weight, d_update.t(), x)
            d_bias.add_(d_update.sum(0))
            d_x = torch.mm(d_update, weight, out=scratch.take("d_x", *x.shape)).view(product[place].shape)
            d_product[place] = normalise_backward(d_x, product[place], (gamma, beta), statistics, (d_gamma, d_beta))
        d_product = _in_front(d_product)
        if is_outgoing:
            d_a, d_b = torch.matmul(d_product, b), torch.matmul(d_product.mT, a)
        else:
            d_a, d_b = torch.matmul(b, d_product.mT), torch.matmul(a, d_product)
        return d_result, d_a, d_b, d_gate, d_gamma, d_beta, d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None


def _product(a: Tensor, b: Tensor, is_outgoing: bool) -> Tensor:
    """[batch, N_i, N_j, c]"""
    return _behind(torch.matmul(a, b.mT) if is_outgoing else torch.matmul(a.mT, b))


def _places(product: Tensor, weight: Tensor) -> Iterator[tuple[int, slice]]:
    """Sample and residues i of every piece. product: [batch, N_i, N_j, c]"""
    batch, num_i, num_j, _ = product.shape
    for sample in range(batch):
        for some in pieces(num_i, num_j * max(weight.shape) * weight.element_size()):
            yield sample, some


def _dropout_of(dropout: Tensor, place: tuple[int, slice]) -> Tensor:
    """What is broadcast over the rows of a piece. dropout: [batch, 1 or N_i, N_j, c_z]"""
    sample, some = place
    return dropout[sample] if dropout.shape[1] == 1 else dropout[sample, some]


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
