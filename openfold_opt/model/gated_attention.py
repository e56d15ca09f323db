"""Gated multi-head self-attention with its projections."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from openfold_opt.model.linear import Linear, concatenate_parameters
from openfold_opt.model.plan import ExecutionPlan


class GatedSelfAttention(nn.Module):
    """Gated self-attention: lines 2-6 of Algorithms 7, 8, 13 and 14."""

    def __init__(self, c: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mask_inf = mask_inf
        self.linear_q = Linear(c, c_hidden * num_heads, bias=False, init="glorot")
        self.linear_k = Linear(c, c_hidden * num_heads, bias=False, init="glorot")
        self.linear_v = Linear(c, c_hidden * num_heads, bias=False, init="glorot")
        self.linear_o = Linear(c_hidden * num_heads, c, init="final")
        self.linear_g = Linear(c, c_hidden * num_heads, init="gating")

    def forward(
        self, x: Tensor, mask: Tensor, bias: Callable[[], Tensor] | None, plan: ExecutionPlan
    ) -> Tensor:
        """Attend within each group.

        Args:
            x: [batch, groups, N, c], normalized.
            mask: [batch, groups, N], 1 where an element exists.
            bias: called when the bias [batch, num_heads, N, N] is needed; None for no bias.
            plan: kernels.

        Returns:
            [batch, groups, N, c]
        """
        projection = concatenate_parameters(
            self.linear_q, self.linear_k, self.linear_v, self.linear_g
        )
        return plan.kernels.self_attention(
            x,
            projection,
            self.linear_o.weights,
            num_heads=self.num_heads,
            mask=mask,
            mask_inf=self.mask_inf,
            bias=bias,
        )
