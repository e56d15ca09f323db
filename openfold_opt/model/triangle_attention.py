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
        pieces, normalised, biases = zip(*((piece, *self._normalise(piece, plan)) for piece in z))
        bias = self._start_bias(join_spread(biases, dim=1), plan)
        return (
            plan.kernels.dropout_residual(piece, self.mha(x, piece_mask, bias, plan), dropout)
            for piece, x, piece_mask in zip(pieces, normalised, cut_spread(mask, plan.dap, dim=1))
        )

    def _normalise(self, z: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Normalised pairs and the bias that they make: [.., c_z] -> [.., c_z] and [.., num_heads]"""
        return self.layer_norm.projected(z, (self.linear.weight, None), plan)

    def _start_bias(self, bias: Tensor, plan: ExecutionPlan) -> Awaited:
        """bias: of this rank's rows, [batch, N_res/dap, N_res, num_heads]; gives that of all, [batch, num_heads, N_res, N_res]."""
        bias = bias.movedim(-1, 1)
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
        pieces, normalised, biases = zip(*((piece, *self._normalise(piece.transpose(1, 2), plan)) for piece in z))
        x, bias = (join_whole(parts, plan.dap, dim=2) for parts in (normalised, biases))
        bias = self._start_bias(bias, plan)

        def updated() -> Iterator[Tensor]:
            update = self.mha(x, mask.transpose(1, 2), bias, plan).transpose(1, 2)
            dropouts = repeat(None) if dropout is None else cut_whole(dropout, plan.dap, dim=1)
            yield from map(plan.kernels.dropout_residual, pieces, cut_whole(update, plan.dap, dim=1), dropouts)

        return updated()
