"""Self-attention along the columns of the clustered MSA."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from openfold_opt.model.gated_attention import GatedSelfAttention
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.chunks import join_replicated


class ColumnAttention(nn.Module):
    """Base of MSAColumnAttention and MSAColumnGlobalAttention, which differ in `attend`."""

    layer_norm_m: LayerNorm
    attend: Callable[[Tensor, Tensor, ExecutionPlan], Tensor]
    """(x [batch, N_res/dap, N_seq, c_m], mask [batch, N_res/dap, N_seq], plan) -> update of x"""

    def forward(self, m: Iterable[Tensor], mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Add the update of the columns to the MSA.

        Args:
            m: chunks of [batch, N_seq, N_res/dap, c_m] along the rows.
            mask: [batch, N_seq, N_res/dap]
            plan: kernels and DAP axis.

        Returns:
            [batch, N_seq, N_res/dap, c_m]
        """
        chunks, normalized = zip(
            *((chunk, self.layer_norm_m(chunk.transpose(1, 2), plan)) for chunk in m)
        )
        x = join_replicated(normalized, plan.dap, dim=2)
        update = self.attend(x, mask.transpose(1, 2), plan).transpose(1, 2)
        return plan.kernels.dropout_residual(join_replicated(chunks, plan.dap, dim=1), update, None)


class MSAColumnAttention(ColumnAttention):
    """Algorithm 8 (MSAColumnAttention)."""

    def __init__(self, c_m: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_m)
        self.mha = GatedSelfAttention(
            c_m, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf
        )

    def attend(self, x: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Attend within each column."""
        return self.mha(x, mask, None, plan)
