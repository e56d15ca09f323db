"""Triangular self-attention of the pair representation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat

from torch import Tensor, nn

from openfold_opt.model.gated_attention import GatedSelfAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import start_gather
from openfold_opt.parallel.flight import Awaited
from openfold_opt.parallel.pieces import cut_spread, cut_whole, join_spread, join_whole


class TriangleAttentionStartingNode(nn.Module):
    """Algorithm 13 (TriangleAttentionStartingNode): the edges that leave one residue attend to each other."""

    def __init__(self, c_z: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_z)
        self.linear = Linear(c_z, num_heads, bias=False, init="normal")
        self.mha = GatedSelfAttention(c_z, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf)

    def forward(self, z: Iterable[Tensor], mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan) -> Iterator[Tensor]:
        """The pair representation with its update added. The bias travels from the call on.

        Args:
            z: pieces of [batch, N_res/dap, N_res, c_z], cut along rows.
            mask: [batch, N_res/dap, N_res]
            dropout: mask of the update, from BlockDropout.

        Returns:
            The pieces of z, computed one by one when asked for.
        """
        pieces, normalised = zip(*((piece, self.layer_norm(piece, plan)) for piece in z))
        bias = self._start_bias(normalised, plan)
        return (
            plan.kernels.dropout_residual(piece, self.mha(x, piece_mask, bias, plan), dropout)
            for piece, x, piece_mask in zip(pieces, normalised, cut_spread(mask, plan.dap, dim=1))
        )

    def _start_bias(self, x: Iterable[Tensor], plan: ExecutionPlan) -> Awaited:
        """From pieces of rows of the normalised pairs the bias for all of them, [batch, num_heads, N_res, N_res], when it is asked for."""
        bias = join_spread((self.linear(piece) for piece in x), dim=1).movedim(-1, 1)
        return Awaited(start_gather(bias, plan.dap, dim=2, length=bias.shape[3], what="triangle bias"))


class TriangleAttentionEndingNode(TriangleAttentionStartingNode):
    """Algorithm 14 (TriangleAttentionEndingNode): Algorithm 13 on the transposed pair representation."""

    def forward(self, z: Iterable[Tensor], mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan) -> Iterator[Tensor]:
        """The pair representation with its update added. The bias travels from the call on.

        Args:
            z: pieces of [batch, N_res, N_res/dap, c_z], cut along rows.
            mask: [batch, N_res, N_res/dap]
            dropout: mask of the update, from BlockDropout.

        Returns:
            The pieces of z, computed when the first is asked for.
        """
        pieces, normalised = zip(*((piece, self.layer_norm(piece.transpose(1, 2), plan)) for piece in z))
        x = join_whole(normalised, plan.dap, dim=2)
        bias = self._start_bias([x], plan)

        def updated() -> Iterator[Tensor]:
            update = self.mha(x, mask.transpose(1, 2), bias, plan).transpose(1, 2)
            dropouts = repeat(None) if dropout is None else cut_whole(dropout, plan.dap, dim=1)
            yield from map(plan.kernels.dropout_residual, pieces, cut_whole(update, plan.dap, dim=1), dropouts)

        return updated()
