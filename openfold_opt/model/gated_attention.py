"""Gated multi-head self-attention with its projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.model.linear import JoinedLinears, LayerNorm, Linear
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
        self._joined = JoinedLinears(self.linear_q, self.linear_k, self.linear_v, self.linear_g)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        bias: Callable[[], Tensor] | None,
        plan: ExecutionPlan,
        *,
        residual: Tensor | None = None,
        dropout: Tensor | None = None,
    ) -> Tensor:
        """Attend within each group.

        Args:
            x: [batch, groups, N, c], normalized.
            mask: [batch, groups, N], 1 where an element exists.
            bias: called when the bias [batch, num_heads, N, N] is needed; None for no bias.
            plan: kernels.
            residual: [batch, groups, N, c], to which the update is added; None: return the update.
            dropout: mask of the update, from BlockDropout; None: no dropout.

        Returns:
            [batch, groups, N, c]
        """
        return self.attend(
            x, self.projection(), mask, bias, plan, residual=residual, dropout=dropout
        )

    def projection(self) -> LinearWeights:
        """Return the joined parameters of the projections to queries, keys, values and gates."""
        return self._joined.weights

    def attend(
        self,
        x: Tensor,
        projection: LinearWeights,
        mask: Tensor,
        bias: Callable[[], Tensor] | None,
        plan: ExecutionPlan,
        *,
        residual: Tensor | None = None,
        dropout: Tensor | None = None,
    ) -> Tensor:
        """Compute `forward` with a projection that several calls share."""
        return plan.kernels.self_attention(
            x,
            projection,
            self.linear_o.weights,
            num_heads=self.num_heads,
            mask=mask,
            mask_inf=self.mask_inf,
            bias=bias,
            residual=residual,
            dropout=dropout,
        )

    def update(
        self,
        x: Tensor,
        norm: LayerNorm,
        mask: Tensor,
        plan: ExecutionPlan,
        *,
        bias: Tensor | None = None,
        bias_linear: Linear | None = None,
        dropout: Tensor | None = None,
    ) -> Tensor:
        """Add the update to a representation that is whole: lines 1-6.

        Args:
            x: [batch, groups, N, c], not normalized.
            norm: normalization of x.
            mask: [batch, groups, N], 1 where an element exists.
            plan: kernels.
            bias: [batch, num_heads, N, N]; None for no bias, or with bias_linear.
            bias_linear: projects normalized x, with as many groups as elements, to the bias.
            dropout: mask of the update, from BlockDropout; None: no dropout.

        Returns:
            [batch, groups, N, c]
        """
        if plan.kernels.residual_attention is not None:
            return plan.kernels.residual_attention(
                x,
                norm.weights,
                self.projection(),
                self.linear_o.weights,
                num_heads=self.num_heads,
                mask=mask,
                mask_inf=self.mask_inf,
                bias=bias,
                bias_projection=None if bias_linear is None else bias_linear.weights,
                dropout=dropout,
            )
        if bias_linear is None:
            x, normalized = norm.normalize_residual(x, plan)
        else:
            x, normalized, bias = norm.normalize_and_project(x, bias_linear.weights, plan)
            bias = bias.movedim(-1, 1)
        get_bias = None if bias is None else lambda: bias
        return self(normalized, mask, get_bias, plan, residual=x, dropout=dropout)


class ResidualAttention(nn.Module):
    """Base of the modules of Algorithms 7, 8, 13, 14 and 19, which add attention to their input.

    Their stages are methods on tensors. `forward` runs the algorithm on one device, where `update`
    does the work of `normalize` and `attend`; model/axial_schedule.py runs these two on the chunks
    of a DAP group.
    """

    stages: ClassVar[tuple[str, ...]] = ("normalize", "attend", "update")
    """Methods that do the work of the module, in the order of the algorithm."""
