"""Self-attention along the columns of the clustered MSA."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from openfold_opt.model.gated_attention import GatedSelfAttention, ResidualAttention
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan


class ColumnAttention(ResidualAttention):
    """Base of MSAColumnAttention and MSAColumnGlobalAttention."""

    layer_norm_m: LayerNorm
    attention: Callable[[Tensor, Tensor, ExecutionPlan], Tensor]
    """(x [batch, N_res/dap, N_seq, c_m], mask [batch, N_res/dap, N_seq], plan) -> update of x"""

    def forward(self, m: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Add the update of the columns to the MSA.

        Args:
            m: [batch, N_seq, N_res, c_m]
            mask: [batch, N_res, N_seq], the transposed MSA mask
            plan: kernels.

        Returns:
            [batch, N_seq, N_res, c_m]
        """
        return self.update(m, mask, plan)

    def update(self, m: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Do `normalize` and `attend` on the whole MSA."""
        m, x = self.normalize(m, plan)
        return self.attend(m, x, mask, plan)

    def normalize(self, m: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Transpose and normalize the MSA.

        Args:
            m: [batch, N_seq, N_res/dap, c_m]
            plan: kernels.

        Returns:
            m for the residual, x: [batch, N_res/dap, N_seq, c_m]
        """
        residual, x = self.layer_norm_m.normalize_residual(m.transpose(1, 2), plan)
        return residual.transpose(1, 2), x

    def attend(self, m: Tensor, x: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Add the update by attention within each column.

        Args:
            m: [batch, N_seq, N_res/dap, c_m]
            x: [batch, N_res/dap, N_seq, c_m], from normalize.
            mask: [batch, N_res/dap, N_seq]
            plan: kernels.

        Returns:
            [batch, N_seq, N_res/dap, c_m]
        """
        return plan.kernels.dropout_residual(m, self.attention(x, mask, plan).transpose(1, 2), None)


class MSAColumnAttention(ColumnAttention):
    """Algorithm 8 (MSAColumnAttention)."""

    def __init__(self, c_m: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_m)
        self.mha = GatedSelfAttention(
            c_m, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf
        )

    def attention(self, x: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Apply multi-head attention (lines 2-6)."""
        return self.mha(x, mask, None, plan)

    def update(self, m: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Add the update to the whole MSA in the layout of the columns."""
        return self.mha.update(m.transpose(1, 2), self.layer_norm_m, mask, plan).transpose(1, 2)

    def attend(self, m: Tensor, x: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Add the update, as in the base class, in the layout of the columns."""
        return self.mha(x, mask, None, plan, residual=m.transpose(1, 2)).transpose(1, 2)
