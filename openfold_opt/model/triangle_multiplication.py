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
    """Base of Algorithms 11 and 12."""

    sharded_dim: int
    """Sharded dim of z: rows (1) for outgoing edges, columns (2) for incoming edges."""
    sent_edges: str
    """Name of the gathered edges in traces."""

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
        """Add the update to the pair representation. The call starts to gather the edges.

        The update of x_ij needs all edges of one residue: of j if rows are sharded, of i if columns
        are sharded. These edges are gathered in chunks, one for each chunk of the result.

        Args:
            z: chunks of [batch, N_res/dap, N_res, c_z] (outgoing) or [batch, N_res, N_res/dap, c_z]
                (incoming) along the sharded dim.
            mask: mask of all chunks, the shape of z without c_z.
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels and DAP axis.

        Returns:
            The updated pair representation in chunks along the other dim, computed lazily one by
            one.
        """
        sharded, other = self.sharded_dim, 3 - self.sharded_dim
        chunks, edges, gates, collectives = zip(*self._start(z, mask, plan))
        own_edges = join_sharded(edges, dim=sharded + 1)
        parts = (
            chunk_replicated(join_sharded(x, dim=sharded), plan.dap, dim=other)
            for x in (chunks, gates)
        )
        # All rows share one dropout mask, so it can be chunked along the columns only.
        dropouts = (
            repeat(dropout)
            if dropout is None or sharded == 2
            else chunk_replicated(dropout, plan.dap, dim=other)
        )
        return (
            self._update(chunk, (own_edges, collective.wait(), gate), chunk_dropout, plan)
            for collective, chunk, gate, chunk_dropout in zip(collectives, *parts, dropouts)
        )

    def _start(
        self, z: Iterable[Tensor], mask: Tensor, plan: ExecutionPlan
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, AsyncCollective]]:
        """Compute the edges of each chunk and start to gather those that all ranks need.

        Yields:
            For each chunk of z: the chunk, its local edges [batch, c_hidden, ..], its gate, and its
            gathered edges, in flight.
        """
        sharded, axis = self.sharded_dim, plan.dap
        projection = concatenate_parameters(
            self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g, self.linear_g
        )
        lengths = chunk_lengths(mask.shape[3 - sharded], axis)
        for chunk, chunk_mask, length in zip(z, chunk_sharded(mask, axis, dim=sharded), lengths):
            a, b, gate = plan.kernels.triangle_edges(
                chunk,
                self.layer_norm_in.weights,
                projection,
                chunk_mask,
                c_hidden=self.c_hidden,
            )
            kept, sent = (a, b) if sharded == 1 else (b, a)
            yield (
                chunk,
                kept,
                gate,
                start_gather(sent, axis, dim=sharded + 1, length=length, what=self.sent_edges),
            )

    def _update(
        self,
        z: Tensor,
        edges: tuple[Tensor, Tensor, Tensor],
        dropout: Tensor | None,
        plan: ExecutionPlan,
    ) -> Tensor:
        """Add the update to a chunk of z.

        edges: the local edges, the gathered edges and the gate.
        """
        kept, received, gate = edges
        a, b = (kept, received) if self.sharded_dim == 1 else (received, kept)
        return plan.kernels.triangle_update(
            z,
            (a, b, gate),
            self.layer_norm_out.weights,
            self.linear_z.weights,
            dropout,
            is_outgoing=self.sharded_dim == 1,
        )


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing), on rows."""

    sharded_dim = 1
    sent_edges = "outgoing edges"


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming), on columns.

    As in the code of the paper, a belongs to i and b belongs to j.
    """

    sharded_dim = 2
    sent_edges = "incoming edges"
