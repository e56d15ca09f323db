"""Triangular self-attention of the pair representation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat

from torch import Tensor, nn

from openfold_opt.model.gated_attention import GatedSelfAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.async_collective import SharedResult
from openfold_opt.parallel.chunks import (
    chunk_replicated,
    chunk_sharded,
    join_replicated,
    join_sharded,
)
from openfold_opt.parallel.collectives import start_gather


class TriangleAttentionStartingNode(nn.Module):
    """Algorithm 13 (TriangleAttentionStartingNode): attention among edges with the same start."""

    def __init__(self, c_z: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_z)
        self.linear = Linear(c_z, num_heads, bias=False, init="normal")
        self.mha = GatedSelfAttention(
            c_z, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf
        )

    def forward(
        self, z: Iterable[Tensor], mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Iterator[Tensor]:
        """Add the update to the pair representation. The call starts to gather the bias.

        Args:
            z: chunks of [batch, N_res/dap, N_res, c_z] along the rows.
            mask: [batch, N_res/dap, N_res]
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels and DAP axis.

        Returns:
            The chunks of z, computed lazily one by one.
        """
        chunks, normalized, biases = zip(*((chunk, *self._normalize(chunk, plan)) for chunk in z))
        bias = self._start_bias(join_sharded(biases, dim=1), plan)
        return (
            plan.kernels.dropout_residual(chunk, self.mha(x, chunk_mask, bias, plan), dropout)
            for chunk, x, chunk_mask in zip(
                chunks, normalized, chunk_sharded(mask, plan.dap, dim=1)
            )
        )

    def _normalize(self, z: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Return the normalized pairs [.., c_z] and their bias [.., num_heads]."""
        return self.layer_norm.normalize_and_project(z, self.linear.weights, plan)

    def _start_bias(self, bias: Tensor, plan: ExecutionPlan) -> SharedResult:
        """Start to gather the bias of all rows.

        Args:
            bias: bias of the rows of this rank, [batch, N_res/dap, N_res, num_heads].
            plan: DAP axis.

        Returns:
            The bias [batch, num_heads, N_res, N_res], in flight.
        """
        bias = bias.movedim(-1, 1)
        return SharedResult(
            start_gather(bias, plan.dap, dim=2, length=bias.shape[3], what="triangle bias")
        )


class TriangleAttentionEndingNode(TriangleAttentionStartingNode):
    """Algorithm 14 (TriangleAttentionEndingNode): Algorithm 13 on the transposed pairs."""

    def forward(
        self, z: Iterable[Tensor], mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Iterator[Tensor]:
        """Add the update to the pair representation. The call starts to gather the bias.

        Args:
            z: chunks of [batch, N_res, N_res/dap, c_z] along the rows.
            mask: [batch, N_res, N_res/dap]
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels and DAP axis.

        Returns:
            The chunks of z, all computed when the first one is requested.
        """
        chunks, normalized, biases = zip(
            *((chunk, *self._normalize(chunk.transpose(1, 2), plan)) for chunk in z)
        )
        x, bias = (join_replicated(parts, plan.dap, dim=2) for parts in (normalized, biases))
        bias = self._start_bias(bias, plan)

        def updated_chunks() -> Iterator[Tensor]:
            update = self.mha(x, mask.transpose(1, 2), bias, plan).transpose(1, 2)
            dropouts = (
                repeat(None) if dropout is None else chunk_replicated(dropout, plan.dap, dim=1)
            )
            yield from map(
                plan.kernels.dropout_residual,
                chunks,
                chunk_replicated(update, plan.dap, dim=1),
                dropouts,
            )

        return updated_chunks()
