"""Attention along the columns of the clustered MSA."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.gated_attention import GatedSelfAttention
from openfold_opt.model.linear import LayerNorm
from openfold_opt.model.plan import ExecutionPlan


class MSAColumnAttention(nn.Module):
    """Algorithm 8 (MSAColumnAttention)."""

    def __init__(self, c_m: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_m)
        self.mha = GatedSelfAttention(c_m, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf)

    def forward(self, m: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Update of the columns.

        Args:
            m: [batch, N_seq, N_res/dap, c_m]
            mask: [batch, N_seq, N_res/dap]

        Returns:
            [batch, N_seq, N_res/dap, c_m]
        """
        m = self.layer_norm_m(m.transpose(1, 2), plan)
        return self.mha(m, mask.transpose(1, 2), None, plan).transpose(1, 2)
