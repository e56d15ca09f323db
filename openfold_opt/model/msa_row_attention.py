"""Self-attention along the rows of an MSA."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from openfold_opt.model.gated_attention import GatedSelfAttention, ResidualAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan


class MSARowAttentionWithPairBias(ResidualAttention):
    """Algorithm 7 (MSARowAttentionWithPairBias), for both MSA stacks."""

    stages = ("pair_bias", "normalize", "attend", "update")

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

    def forward(
        self, m: Tensor, z: Tensor, mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Tensor:
        """Add the update of the rows to the MSA.

        Args:
            m: [batch, N_seq, N_res, c_m]
            z: [batch, N_res, N_res, c_z]
            mask: [batch, N_seq, N_res]
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels.

        Returns:
            [batch, N_seq, N_res, c_m]
        """
        _, bias = self.pair_bias(z, plan)
        return self.update(m, mask, bias, plan, dropout=dropout)

    def update(
        self, m: Tensor, mask: Tensor, bias: Tensor, plan: ExecutionPlan, *, dropout: Tensor | None
    ) -> Tensor:
        """Do `normalize` and `attend` on the whole MSA, with the bias of pair_bias."""
        return self.mha.update(m, self.layer_norm_m, mask, plan, bias=bias, dropout=dropout)

    def pair_bias(self, z: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Compute the bias from the pairs (line 3).

        Args:
            z: [batch, N_res, N_res/dap, c_z]
            plan: kernels.

        Returns:
            z for further use, bias: [batch, num_heads, N_res, N_res/dap]
        """
        z, bias = self.layer_norm_z.project_normalized(z, self.linear_z.weights, plan)
        return z, bias.movedim(-1, 1)

    def normalize(self, m: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Return m [batch, N_seq/dap, N_res, c_m] for the residual, and normalized (line 1)."""
        return self.layer_norm_m.normalize_residual(m, plan)

    def attend(
        self,
        m: Tensor,
        x: Tensor,
        mask: Tensor,
        bias: Callable[[], Tensor],
        plan: ExecutionPlan,
        *,
        dropout: Tensor | None,
    ) -> Tensor:
        """Add the update by attention within each row (lines 2 and 4-7).

        Args:
            m: [batch, N_seq/dap, N_res, c_m]
            x: [batch, N_seq/dap, N_res, c_m], normalized.
            mask: [batch, N_seq/dap, N_res]
            bias: called when the bias [batch, num_heads, N_res, N_res] is needed.
            plan: kernels.
            dropout: dropout mask of the update, from BlockDropout.

        Returns:
            [batch, N_seq/dap, N_res, c_m]
        """
        return self.mha(x, mask, bias, plan, residual=m, dropout=dropout)
