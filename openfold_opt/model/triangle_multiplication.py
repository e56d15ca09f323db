"""Triangular multiplicative updates of the pair representation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat

from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear, joined_parameters
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import start_gather
from openfold_opt.parallel.flight import Flight
from openfold_opt.parallel.pieces import cut_spread, cut_whole, join_spread, piece_lengths


class TriangleMultiplication(nn.Module):
    """What Algorithms 11 and 12 share."""

    spread_dim: int
    """Of z, over the ranks: rows if the edges leave i and j, columns if they enter them."""
    travelling_edges: str
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

    def forward(self, z: Iterable[Tensor], mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan) -> Iterator[Tensor]:
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
        spread, other = self.spread_dim, 3 - self.spread_dim
        pieces, edges, gates, flights = zip(*self._start(z, mask, plan))
        own_edge = join_spread(edges, dim=spread + 1)
        parts = (cut_whole(join_spread(x, dim=spread), plan.dap, dim=other) for x in (pieces, gates))
        # rows share one mask, so that only columns of it can be cut
        dropouts = repeat(dropout) if dropout is None or spread == 2 else cut_whole(dropout, plan.dap, dim=other)
        return (
            self._update(piece, (own_edge, flight.arrive(), gate), piece_dropout, plan)
            for flight, piece, gate, piece_dropout in zip(flights, *parts, dropouts)
        )

    def _start(self, z: Iterable[Tensor], mask: Tensor, plan: ExecutionPlan) -> Iterator[tuple[Tensor, Tensor, Tensor, Flight]]:
        """Of each piece: itself, its edge that stays, its gate, and its edge that all ranks want. Edges have channels in front."""
        spread, axis, norm = self.spread_dim, plan.dap, self.layer_norm_in
        projection = joined_parameters(self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g, self.linear_g)
        lengths = piece_lengths(mask.shape[3 - spread], axis)
        for piece, piece_mask, length in zip(z, cut_spread(mask, axis, dim=spread), lengths):
            a, b, gate = plan.kernels.triangle_edges(
                piece, (norm.weight, norm.bias), projection, piece_mask, c_hidden=self.c_hidden, eps=norm.eps
            )
            stays, travels = (a, b) if spread == 1 else (b, a)
            yield piece, stays, gate, start_gather(travels, axis, dim=spread + 1, length=length, what=self.travelling_edges)

    def _update(self, z: Tensor, edges: tuple[Tensor, Tensor, Tensor], dropout: Tensor | None, plan: ExecutionPlan) -> Tensor:
        """edges: those that stayed, those that travelled, and the gate."""
        norm, output = self.layer_norm_out, self.linear_z
        stayed, travelled, gate = edges
        a, b = (stayed, travelled) if self.spread_dim == 1 else (travelled, stayed)
        return plan.kernels.triangle_update(
            z,
            (a, b, gate),
            (norm.weight, norm.bias),
            (output.weight, output.bias),
            dropout,
            is_outgoing=self.spread_dim == 1,
            eps=norm.eps,
        )


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing), on rows."""

    spread_dim = 1
    travelling_edges = "outgoing edges"


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming), on columns. As in the paper's code, a goes with i and b with j."""

    spread_dim = 2
    travelling_edges = "incoming edges"
