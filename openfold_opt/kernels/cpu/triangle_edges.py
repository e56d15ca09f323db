"""The edges of the triangle multiplications by pieces of rows. Projections are made with their channels in front, so nothing is transposed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import Scratch, add_product, pieces, sums_like

_aten = torch.ops.aten

Pair = tuple[Tensor, Tensor]


def triangle_edges(
    z: Tensor, norm: Pair, projection: Pair, mask: Tensor, *, c_hidden: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """kernels/reference/triangle.py, which has shapes and meaning; keeps its inputs only and computes the rest again."""
    return _TriangleEdges.apply(z, *norm, *projection, mask, (c_hidden, eps))


class _TriangleEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z, gamma, beta, weight, bias, mask, sizes) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(z, gamma, beta, weight, bias, mask)
        ctx.again = EdgesAgain(ctx, sizes)
        scratch, c = Scratch(weight), sizes[0]
        return _compute_edges((z, gamma, beta, weight, bias, mask), sizes, lambda n: scratch.take("joined", 4 * c, n))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_a: Tensor, d_b: Tensor, d_gate: Tensor) -> tuple[Tensor | None, ...]:
        (z, gamma, beta, weight, bias, mask), joined = ctx.again.take()
        c, eps = ctx.again.sizes
        rows, mask_rows, d_gate, scratch = _as_rows(z), mask.flatten(1).to(weight.dtype), _as_rows(d_gate), Scratch(weight)
        d_edges = d_a.contiguous(), d_b.contiguous()
        d_z = torch.empty_like(rows)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        for number, place in enumerate(_places(rows, weight[: 4 * c])):
            x, *statistics = normalise(rows[place], (gamma, beta), eps)
            x = x.to(weight.dtype)
            if joined:
                value, opened = joined[number].chunk(2)
            else:
                value, opened = _gated_projection(x, weight, bias, scratch.take("joined", 4 * c, len(x)))
            d_side = scratch.take("d_side", 2 * c, len(x))
            for d_edge, target in zip(d_edges, d_side.split(c)):
                torch.mul(_of_channels(d_edge, place), mask_rows[place], out=target)
            d_joined = scratch.take("d_joined", 4 * c, len(x))
            torch.mul(d_side, opened, out=d_joined[: 2 * c])
            _aten.sigmoid_backward.grad_input(d_side.mul_(value), opened, grad_input=d_joined[2 * c :])
            add_product(d_weight[: 4 * c], d_joined, x)
            add_product(d_weight[4 * c :], d_gate[place].t(), x)
            d_bias[: 4 * c].add_(d_joined.sum(1))
            d_x = torch.mm(d_joined.t(), weight[: 4 * c], out=scratch.take("d_x", *x.shape)).addmm_(d_gate[place], weight[4 * c :])
            d_z[place] = normalise_backward(d_x, rows[place], (gamma, beta), statistics, (d_gamma, d_beta))
        d_bias[4 * c :] = d_gate.sum((0, 1))
        return d_z.view(z.shape), d_gamma, d_beta, d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None


class EdgesAgain:
    """The way back from edges to what they were made of: whoever needs them in the backward pass need not keep them until then.

    Of the three tensors only the inputs are kept, a third of their size. The backward pass of the edges comes last and finds here what
    was computed again on the way.
    """

    def __init__(self, node: FunctionCtx, sizes: tuple[int, float]) -> None:
        self.sizes = sizes
        self._node = weakref.ref(node)
        self._inputs: tuple[Tensor, ...] | None = None
        self._joined: list[Tensor] = []

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and the output gate."""
        weight = self._unpack()[3]

        def room(n: int) -> Tensor:
            self._joined.append(weight.new_empty(4 * self.sizes[0], n))
            return self._joined[-1]

        return _compute_edges(self._unpack(), self.sizes, room)

    def take(self) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Inputs of the edges and what _gated_projection made of each piece [4 * c_hidden, n], empty if they were not computed again."""
        found = self._unpack(), self._joined
        self._inputs, self._joined = None, []
        return found

    def _unpack(self) -> tuple[Tensor, ...]:
        # once for both: under recomputation, saved tensors can be unpacked only once
        if self._inputs is None:
            self._inputs = self._node().saved_tensors
        return self._inputs


def edges_again(edges: tuple[Tensor, Tensor, Tensor]) -> EdgesAgain | None:
    """None if these tensors, or what autograd knows of them, did not come from triangle_edges as they are."""
    nodes = {edge.grad_fn for edge in edges}
    is_in_order = [edge.output_nr for edge in edges] == [0, 1, 2]
    return getattr(nodes.pop(), "again", None) if len(nodes) == 1 and is_in_order else None


def _compute_edges(
    inputs: tuple[Tensor, ...], sizes: tuple[int, float], room: Callable[[int], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """a, b and the output gate; room(n) is where a piece of n rows puts its projections [4 * c_hidden, n]."""
    z, gamma, beta, weight, bias, mask = inputs
    c, eps = sizes
    rows, mask_rows = _as_rows(z), mask.flatten(1).to(weight.dtype)
    edges = [weight.new_empty(z.shape[0], c, *z.shape[1:3]) for _ in range(2)]
    output_gate = weight.new_empty(*z.shape[:3], len(weight) - 4 * c)
    for place in _places(rows, weight[: 4 * c]):
        x = normalise(rows[place], (gamma, beta), eps)[0].to(weight.dtype)
        value, opened = _gated_projection(x, weight, bias, room(len(x)))
        for edge, edge_value, edge_opened in zip(edges, value.split(c), opened.split(c)):
            torch.mul(edge_value, edge_opened, out=_of_channels(edge, place)).mul_(mask_rows[place])
        torch.addmm(bias[4 * c :], x, weight[4 * c :].t(), out=_as_rows(output_gate)[place])
    return *edges, output_gate


def _gated_projection(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Pair:
    """Values of a and b and their gates after the sigmoid, [2 * c_hidden, n] each, written to out [4 * c_hidden, n]. x: [n, c_z]"""
    torch.addmm(bias[: len(out), None], weight[: len(out)], x.t(), out=out)
    value, gate = out.chunk(2)
    return value, gate.sigmoid_()


def _places(rows: Tensor, weight: Tensor) -> Iterator[tuple[int, slice]]:
    """Sample and rows of every piece. rows: [batch, N, c]"""
    for sample in range(rows.shape[0]):
        for some in pieces(rows.shape[1], weight.shape[0] * weight.element_size()):
            yield sample, some


def _as_rows(x: Tensor) -> Tensor:
    """[batch, N_1, N_2, c] -> [batch, N_1 * N_2, c]"""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _of_channels(x: Tensor, place: tuple[int, slice]) -> Tensor:
    """The part of x [batch, c, N_1, N_2] that a piece of rows makes up: [c, n], no copy."""
    sample, rows = place
    return x[sample].flatten(1)[:, rows]
