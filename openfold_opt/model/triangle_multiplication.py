"""Triangular multiplicative updates of the pair representation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat

from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear, concatenate_parameters
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.async_collective import AsyncCollective
from openfold_opt.parallel.chunks import (
    chunk_lengths,
    chunk_replicated,
    chunk_sharded,
    join_sharded,
)
from openfold_opt.parallel.collectives import start_gather


class TriangleMultiplication(nn.Module):
    """What Algorithms 11 and 12 share."""

    sharded_dim: int
    """Of z, over the ranks: rows if the edges leave i and j, columns if they enter them."""
    sent_edges: str
    """Their name in traces."""

    def __init__(self, c_z: int, *, c_hidden: int) -> None:
        super().__init__()
        self.c_hidden = c_hidden
        self.linear_a_p = Linear(c_z, c_hidden)
        self.linear_a_g = Linear(c_z, c_hidden, init="gating")
        self.linear_b_p = Linear(c_z, c_hidden)
        self.linear_b_g = Linear(c_z, c_hidden, init="gating")
        self.linear_g = Linear(c_z, c_z, init="gating")
        self.linear_z = Linear(c_hidden, c_z, init="final")
        self.layer_norm_in = LayerNorm(c_z)
        self.layer_norm_out = LayerNorm(c_hidden)

    def forward(
        self, z: Iterable[Tensor], mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Iterator[Tensor]:
        """The pair representation with its update added. The edges travel from the call on.

        Args:
            z: pieces of [batch, N_res/dap, N_res, c_z] (outgoing: rows) or [batch, N_res, N_res/dap, c_z] (incoming: columns), cut
                along the dim that is spread.
            mask: the whole without c_z.
            dropout: mask of the update, from BlockDropout.

        Returns:
            The same, cut along the other dim, computed one by one when asked for. x_ij needs all edges of one residue, of j for rows i,
            of i for columns j: as many pieces of them travel as there are pieces of x.
        """
        spread, other = self.sharded_dim, 3 - self.sharded_dim
        chunks, edges, gates, collectives = zip(*self._start(z, mask, plan))
        own_edge = join_sharded(edges, dim=spread + 1)
        parts = (
            chunk_replicated(join_sharded(x, dim=spread), plan.dap, dim=other)
            for x in (chunks, gates)
        )
        # rows share one mask, so that only columns of it can be cut
        dropouts = (
            repeat(dropout)
            if dropout is None or spread == 2
            else chunk_replicated(dropout, plan.dap, dim=other)
        )
        return (
            self._update(chunk, (own_edge, collective.wait(), gate), chunk_dropout, plan)
            for collective, chunk, gate, chunk_dropout in zip(collectives, *parts, dropouts)
        )

    def _start(
        self, z: Iterable[Tensor], mask: Tensor, plan: ExecutionPlan
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, AsyncCollective]]:
        """Of each piece: itself, its edge that stays, its gate, and its edge that all ranks want. Edges have channels in front."""
        spread, axis, norm = self.sharded_dim, plan.dap, self.layer_norm_in
        projection = concatenate_parameters(
            self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g, self.linear_g
        )
        lengths = chunk_lengths(mask.shape[3 - spread], axis)
        for chunk, chunk_mask, length in zip(z, chunk_sharded(mask, axis, dim=spread), lengths):
            a, b, gate = plan.kernels.triangle_edges(
                chunk,
                (norm.weight, norm.bias),
                projection,
                chunk_mask,
                c_hidden=self.c_hidden,
                eps=norm.eps,
            )
            kept, sent = (a, b) if spread == 1 else (b, a)
            yield (
                chunk,
                kept,
                gate,
                start_gather(sent, axis, dim=spread + 1, length=length, what=self.sent_edges),
            )

    def _update(
        self,
        z: Tensor,
        edges: tuple[Tensor, Tensor, Tensor],
        dropout: Tensor | None,
        plan: ExecutionPlan,
    ) -> Tensor:
        """edges: those that stayed, those that traveled, and the gate."""
        norm, output = self.layer_norm_out, self.linear_z
        kept, received, gate = edges
        a, b = (kept, received) if self.sharded_dim == 1 else (received, kept)
        return plan.kernels.triangle_update(
            z,
            (a, b, gate),
            (norm.weight, norm.bias),
            (output.weight, output.bias),
            dropout,
            is_outgoing=self.sharded_dim == 1,
            eps=norm.eps,
        )


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing), on rows."""

    sharded_dim = 1
    sent_edges = "outgoing edges"


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming), on columns. As in the paper's code, a goes with i and b with j."""

    sharded_dim = 2
    sent_edges = "incoming edges"
