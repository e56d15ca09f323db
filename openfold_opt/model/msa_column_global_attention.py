"""Global attention along the columns of the extra MSA, with one query per column and head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openfold_opt.model.linear import JoinedLinears, LayerNorm, Linear
from openfold_opt.model.msa_column_attention import ColumnAttention
from openfold_opt.model.plan import ExecutionPlan


class GlobalAttention(nn.Module):
    """Global attention: Algorithm 19, lines 2-7."""

    def __init__(
        self, c_e: int, *, c_hidden: int, num_heads: int, mask_inf: float, eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mask_inf = mask_inf
        self.eps = eps
        self.linear_q = Linear(c_e, c_hidden * num_heads, bias=False, init="glorot")
        self.linear_k = Linear(c_e, c_hidden, bias=False, init="glorot")
        self.linear_v = Linear(c_e, c_hidden, bias=False, init="glorot")
        self.linear_g = Linear(c_e, c_hidden * num_heads, init="gating")
        self.linear_o = Linear(c_hidden * num_heads, c_e, init="final")
        self._joined = JoinedLinears(self.linear_k, self.linear_v, self.linear_g)

    def forward(self, x: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Attend within each group.

        Args:
            x: [batch, groups, N, c_e], normalized.
            mask: [batch, groups, N]
            plan: kernels.

        Returns:
            [batch, groups, N, c_e]
        """
        total = torch.matmul(mask.unsqueeze(-2).to(x.dtype), x).squeeze(-2)
        mean = total / (mask.sum(-1, keepdim=True) + self.eps)
        projected = self._joined.project(x)
        output = plan.kernels.global_attention(
            self.linear_q(mean),
            projected,
            num_heads=self.num_heads,
            mask=mask,
            mask_inf=self.mask_inf,
        )
        return self.linear_o(output)


class MSAColumnGlobalAttention(ColumnAttention):
    """Algorithm 19 (MSAColumnGlobalAttention)."""

    def __init__(
        self, c_e: int, *, c_hidden: int, num_heads: int, mask_inf: float, eps: float
    ) -> None:
        super().__init__()
        self.layer_norm_m = LayerNorm(c_e)
        self.global_attention = GlobalAttention(
            c_e, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf, eps=eps
        )

    def attention(self, x: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Apply global attention (lines 2-7)."""
        return self.global_attention(x, mask, plan)
