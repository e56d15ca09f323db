"""Edges of the triangle multiplications in tiles of rows.

The projections are computed with channels in the first dim, so that no tensor is transposed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalize, normalize_backward
from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.recomputation import Recomputable
from openfold_opt.kernels.cpu.tiles import Scratch, add_product, sums_like, tiles
from openfold_opt.kernels.interface import LinearWeights, NormWeights

Pair = tuple[Tensor, Tensor]


def triangle_edges(
    z: Tensor, norm: NormWeights, projection: LinearWeights, mask: Tensor, *, c_hidden: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute kernels.reference.triangle_edges; its docstring has the shapes.

    Saves only its inputs for the backward pass and recomputes the rest.
    """
    parameters = (norm.weight, norm.bias, *projection)
    return z, *_TriangleEdges.apply(z, *parameters, mask, (c_hidden, norm.eps))


class _TriangleEdges(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, z, gamma, beta, weight, bias, mask, sizes
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(z, gamma, beta, weight, bias, mask)
        scratch, c = Scratch(weight), sizes[0]
        results = _compute_edges(
            (z, gamma, beta, weight, bias, mask), sizes, lambda n: scratch.take("joined", 4 * c, n)
        )
        ctx.recompute = RecomputableEdges(ctx, results, sizes)
        return results

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, d_a: Tensor, d_b: Tensor, d_gate: Tensor
    ) -> tuple[Tensor | None, ...]:
        all_joined, (z, gamma, beta, weight, bias, mask) = (
            ctx.recompute.take_joined(),
            ctx.recompute.release(),
        )
        c, eps = ctx.recompute.sizes
        projection, rows, d_gate = _Projection.of(weight, bias, c), _as_rows(z), _as_rows(d_gate)
        masks, d_z, scratch = _as_mask(mask, z), torch.empty_like(rows), Scratch(weight)
        d_edges = [d.contiguous().flatten(2) for d in (d_a, d_b)]
        d_gamma, d_beta, d_weight, d_offsets = sums_like(gamma, beta, weight, projection.offsets)
        d_edge_weight, d_gate_weight = d_weight.tensor_split((4 * c,))
        for index, (sample, tile) in enumerate(projection.tiles(rows)):
            z_rows, d_gate_rows, mask_rows = (
                rows[sample, tile],
                d_gate[sample, tile],
                masks[sample, tile],
            )
            x = scratch.take("x", *z_rows.shape)
            statistics = normalize(z_rows, (gamma, beta), eps, x)
            if all_joined:
                joined = all_joined[index]
            else:
                unused_edge = scratch.take("edge", c, len(x))
                joined = projection.gate_edges(
                    x, mask_rows, (unused_edge, unused_edge), scratch.take("joined", 4 * c, len(x))
                )
            for (value, gate), d_offset, d_edge in zip(_sides(joined), d_offsets, d_edges):
                call(
                    "gate_edges_backward",
                    value,
                    gate,
                    d_offset,
                    mask_rows,
                    d_edge[sample, :, tile],
                    d_edge.stride(1),
                    *value.shape,
                )
            add_product(d_edge_weight, joined, x)
            add_product(d_gate_weight, d_gate_rows.t(), x)
            d_x = torch.mm(joined.t(), projection.edge_weight, out=scratch.take("d_x", *x.shape))
            d_x.addmm_(d_gate_rows, projection.gate_weight)
            normalize_backward(d_x, z_rows, statistics, (gamma, d_gamma, d_beta), d_z[sample, tile])
        d_bias = torch.cat((d_offsets.transpose(0, 1).flatten(), d_gate.sum((0, 1)).float()))
        return (
            d_z.view(z.shape),
            d_gamma,
            d_beta,
            d_weight.to(weight.dtype),
            d_bias.to(bias.dtype),
            None,
            None,
        )


class RecomputableEdges(Recomputable):
    """Edges and output gate, recomputed from the inputs, which have a third of their size.

    The backward pass of the edges runs last and reuses the projections of the recomputation.
    """

    def __init__(
        self, node: FunctionCtx, results: Sequence[Tensor], sizes: tuple[int, float]
    ) -> None:
        super().__init__(node, results)
        self.sizes = sizes
        self._joined: list[Tensor] = []

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return a, b and the output gate, and keep the projections for take_joined."""
        weight = self.saved()[3]

        def workspace(n: int) -> Tensor:
            self._joined.append(weight.new_empty(4 * self.sizes[0], n))
            return self._joined[-1]

        return _compute_edges(self.saved(), self.sizes, workspace)

    def take_joined(self) -> list[Tensor]:
        """Return and drop the projections [4 * c_hidden, n] of each tile.

        The list is empty if they were not recomputed.
        """
        joined, self._joined = self._joined, []
        return joined


def _compute_edges(
    inputs: tuple[Tensor, ...], sizes: tuple[int, float], workspace: Callable[[int], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, b and the output gate.

    workspace: returns memory for the projections [4 * c_hidden, n] of a tile of n rows.
    """
    z, gamma, beta, weight, bias, mask = inputs
    c, eps = sizes
    projection, rows, masks, scratch = (
        _Projection.of(weight, bias, c),
        _as_rows(z),
        _as_mask(mask, z),
        Scratch(weight),
    )
    edges = [weight.new_empty(z.shape[0], c, *z.shape[1:3]) for _ in range(2)]
    flat_edges = [edge.flatten(2) for edge in edges]
    output_gate = weight.new_empty(*rows.shape[:2], len(projection.gate_weight))
    for sample, tile in projection.tiles(rows):
        z_rows, gate_rows = rows[sample, tile], output_gate[sample, tile]
        x = scratch.take("x", *z_rows.shape)
        normalize(z_rows, (gamma, beta), eps, x)
        projection.gate_edges(
            x,
            masks[sample, tile],
            [edge[sample, :, tile] for edge in flat_edges],
            workspace(len(x)),
        )
        torch.mm(x, projection.gate_weight.t(), out=gate_rows)
        call("add_to_rows", gate_rows, projection.gate_bias, *gate_rows.shape)
    return *edges, output_gate.view(*z.shape[:3], output_gate.shape[-1])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Projection:
    """Projection to values and gates of both edges [4 * c_hidden, c_z], and to the output gate."""

    edge_weight: Tensor
    gate_weight: Tensor
    offsets: Tensor
    """[2, 2, c_hidden]: bias of value and gate of a, and of value and gate of b."""
    gate_bias: Tensor
    row_bytes: int
    """Size of the projections of a row."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, c: int) -> _Projection:
        """Split weight [4 * c + c_z, c_z] and bias, in the order of triangle_gate."""
        edge_weight, gate_weight = weight.tensor_split((4 * c,))
        edge_bias, gate_bias = bias.tensor_split((4 * c,))
        return cls(
            edge_weight=edge_weight,
            gate_weight=gate_weight,
            offsets=edge_bias.view(2, 2, c).transpose(0, 1).contiguous(),
            gate_bias=gate_bias,
            row_bytes=4 * c * weight.element_size(),
        )

    def tiles(self, rows: Tensor) -> Iterator[tuple[int, slice]]:
        """Yield sample and slice of each tile of rows [batch, N, c_z]."""
        return itertools.product(range(rows.shape[0]), tiles(rows.shape[1], self.row_bytes))

    def gate_edges(self, x: Tensor, mask: Tensor, edges: Sequence[Tensor], out: Tensor) -> Tensor:
        """Compute the edges a and b [c, n] of x [n, c_z], writing to `edges`.

        Returns:
            out [4 * c, n]: values of a and b, and their gates after the sigmoid.
        """
        torch.mm(self.edge_weight, x.t(), out=out)
        for (value, gate), offset, edge in zip(_sides(out), self.offsets, edges):
            call("gate_edges", value, gate, offset, mask, edge, edge.stride(0), *value.shape)
        return out


def _sides(joined: Tensor) -> tuple[Pair, Pair]:
    """Return values and gates [c, n] of a and of b from joined [4 * c, n]."""
    value_a, value_b, gate_a, gate_b = joined.chunk(4)
    return (value_a, gate_a), (value_b, gate_b)


def _as_mask(mask: Tensor, z: Tensor) -> Tensor:
    """Return mask [batch, N_1, N_2] as [batch, N_1 * N_2] float32, expanded to the shape of z."""
    return mask.expand(z.shape[:3]).flatten(1).float().contiguous()


def _as_rows(x: Tensor) -> Tensor:
    """Return x [batch, N_1, N_2, c] as contiguous rows [batch, N_1 * N_2, c]."""
    return x.flatten(1, 2).contiguous()
