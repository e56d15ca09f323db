"""Self-attention along the rows of an MSA."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from openfold_opt.model.gated_attention import GatedSelfAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.async_collective import AsyncCollective, SharedResult
from openfold_opt.parallel.chunks import chunk_sharded
from openfold_opt.parallel.collectives import start_gather


class MSARowAttentionWithPairBias(nn.Module):
    """Algorithm 7 (MSARowAttentionWithPairBias), for both MSA stacks."""

    def __init__(
        self, c_m: int, c_z: int, *, c_hidden: int, num_heads: int, mask_inf: float
    ) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_m)
        self.layer_norm_z = LayerNorm(c_z)
        self.linear_z = Linear(c_z, num_heads, bias=False, init="normal")
        self.mha = GatedSelfAttention(
            c_m, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf
        )

    def start_pair_bias(self, z: Tensor, plan: ExecutionPlan) -> AsyncCollective:
        """Compute lines 1-3 on the columns of this rank and start to gather the bias.

        Args:
            z: [batch, N_res, N_res/dap, c_z]
            plan: kernels and DAP axis.

        Returns:
            The bias [batch, num_heads, N_res, N_res], in flight.
        """
        _, bias = self.layer_norm_z.normalize_and_project(z, self.linear_z.weights, plan)
        bias = bias.movedim(-1, 1)
        return start_gather(bias, plan.dap, dim=3, length=z.shape[1], what="pair bias")

    def forward(
        self,
        m: Tensor,
        bias: AsyncCollective,
        mask: Tensor,
        dropout: Tensor | None,
        plan: ExecutionPlan,
    ) -> Iterator[Tensor]:
        """Add the update of the rows to the MSA.

        Args:
            m: [batch, N_seq/dap, N_res, c_m]
            bias: from start_pair_bias.
            mask: [batch, N_seq/dap, N_res]
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels and DAP axis.

        Yields:
            Chunks of [batch, N_seq/dap, N_res, c_m] along the rows.
        """
        shared_bias = SharedResult(bias)
        chunks = (chunk_sharded(x, plan.dap, dim=1) for x in (m, self.layer_norm_m(m, plan), mask))
        for chunk, x, chunk_mask in zip(*chunks):
            yield plan.kernels.dropout_residual(
                chunk, self.mha(x, chunk_mask, shared_bias, plan), dropout
            )
