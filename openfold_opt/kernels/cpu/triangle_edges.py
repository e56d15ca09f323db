"""The edges of the triangle multiplications by pieces of rows. Projections are made with their channels in front, so nothing is transposed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import Scratch, add_product, piece_length, sums_like

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
        d_z, split = torch.empty_like(rows), _split(weight, bias, c)
        d_gamma, d_beta, d_weight, d_bias = sums_like(gamma, beta, weight, bias)
        (d_edge_weight, d_gate_weight), d_edge_bias = d_weight.tensor_split((4 * c,)), d_bias[: 4 * c]
        in_front = d_a.contiguous().flatten(2), d_b.contiguous().flatten(2)
        places = _pieces_of((rows, d_z, mask_rows, d_gate), in_front, split.length)
        for number, (z_rows, d_z_rows, some_mask, d_gate_rows, *d_edges) in enumerate(places):
            n = len(z_rows)
            x, *statistics = normalise(z_rows, (gamma, beta), eps)
            x = x.to(weight.dtype)
            value, opened = (joined[number] if joined else split.project(x, scratch.take("joined", 4 * c, n))).chunk(2)
            d_side, d_joined = scratch.take("d_side", 2 * c, n), scratch.take("d_joined", 4 * c, n)
            for d_edge, target in zip(d_edges, d_side.split(c)):
                torch.mul(d_edge, some_mask, out=target)
            d_value, d_opened = d_joined.chunk(2)
            torch.mul(d_side, opened, out=d_value)
            _aten.sigmoid_backward.grad_input(d_side.mul_(value), opened, grad_input=d_opened)
            add_product(d_edge_weight, d_joined, x)
            add_product(d_gate_weight, d_gate_rows.t(), x)
            d_edge_bias.add_(d_joined.sum(1))
            d_x = torch.mm(d_joined.t(), split.edge_weight, out=scratch.take("d_x", *x.shape)).addmm_(d_gate_rows, split.gate_weight)
            d_z_rows.copy_(normalise_backward(d_x, z_rows, (gamma, beta), statistics, (d_gamma, d_beta)))
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
        """Inputs of the edges and the projections of each piece [4 * c_hidden, n], empty if they were not computed again."""
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
    split = _split(weight, bias, c)
    edges = [weight.new_empty(z.shape[0], c, *z.shape[1:3]) for _ in range(2)]
    output_gate = weight.new_empty(*z.shape[:3], len(split.gate_weight))
    behind = _as_rows(z), mask.flatten(1).to(weight.dtype), _as_rows(output_gate)
    for z_rows, some_mask, gate_rows, *edge_parts in _pieces_of(behind, [edge.flatten(2) for edge in edges], split.length):
        x = normalise(z_rows, (gamma, beta), eps)[0].to(weight.dtype)
        values_and_opened = split.project(x, room(len(x))).split(c)
        for edge, value, opened in zip(edge_parts, values_and_opened[:2], values_and_opened[2:]):
            torch.mul(value, opened, out=edge).mul_(some_mask)
        torch.addmm(split.gate_bias, x, split.gate_weight_t, out=gate_rows)
    return *edges, output_gate


@dataclass(frozen=True, kw_only=True, eq=False)
class _Split:
    """Projection to values and gates of both edges [4 * c_hidden, c_z], and to the output gate."""

    edge_weight: Tensor
    gate_weight: Tensor
    gate_weight_t: Tensor
    edge_bias: Tensor
    """[4 * c_hidden, 1]"""
    gate_bias: Tensor
    length: int
    """Rows of a piece."""

    def project(self, x: Tensor, out: Tensor) -> Tensor:
        """Values of a and b and their gates after the sigmoid, to out [4 * c_hidden, n]. x: [n, c_z]"""
        torch.addmm(self.edge_bias, self.edge_weight, x.t(), out=out)
        out.chunk(2)[1].sigmoid_()
        return out


def _split(weight: Tensor, bias: Tensor, c: int) -> _Split:
    edge_weight, gate_weight = weight.tensor_split((4 * c,))
    edge_bias, gate_bias = bias.tensor_split((4 * c,))
    return _Split(
        edge_weight=edge_weight,
        gate_weight=gate_weight,
        gate_weight_t=gate_weight.t(),
        edge_bias=edge_bias[:, None],
        gate_bias=gate_bias,
        length=piece_length(4 * c * weight.element_size()),
    )


def _pieces_of(behind: Sequence[Tensor], in_front: Sequence[Tensor], length: int) -> Iterator[tuple[Tensor, ...]]:
    """Parts of a sample's rows: of tensors [batch, N, ...], and of those [batch, c, N] with channels in front; no copies."""
    for sample in zip(*behind, *in_front):
        yield from zip(*(x.split(length, dim=0 if number < len(behind) else 1) for number, x in enumerate(sample)))


def _as_rows(x: Tensor) -> Tensor:
    """[batch, N_1, N_2, c] -> [batch, N_1 * N_2, c]"""
    return x.reshape(x.shape[0], -1, x.shape[-1])
