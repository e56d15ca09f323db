"""Triangular self-attention of the pair representation."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from openfold_opt.model.gated_attention import GatedSelfAttention, ResidualAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan


class TriangleAttentionStartingNode(ResidualAttention):
    """Algorithm 13 (TriangleAttentionStartingNode): attention among edges with the same start."""

    def __init__(self, c_z: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_z)
        self.linear = Linear(c_z, num_heads, bias=False, init="normal")
        self.mha = GatedSelfAttention(
            c_z, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf
        )

    def forward(
        self, z: Tensor, mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Tensor:
        """Add the update to the pair representation.

        Args:
            z: [batch, N_res, N_res, c_z]
            mask: [batch, N_res, N_res]
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels.

        Returns:
            [batch, N_res, N_res, c_z]
        """
        return self.update(z, mask, dropout, plan)

    def update(
        self, z: Tensor, mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Tensor:
        """Do `normalize` and `attend` on whole pairs; arguments as for `attend`."""
        return self.mha.update(
            z, self.layer_norm, mask, plan, bias_linear=self.linear, dropout=dropout
        )

    def normalize(self, z: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize the pairs and compute their bias (lines 1 and 3).

        Args:
            z: [batch, N_res/dap, N_res, c_z]
            plan: kernels.

        Returns:
            z for the residual, x: [batch, N_res/dap, N_res, c_z], bias: [batch, N_res/dap, N_res,
            num_heads]
        """
        return self.layer_norm.normalize_and_project(z, self.linear.weights, plan)

    def attend(
        self,
        z: Tensor,
        x: Tensor,
        mask: Tensor,
        bias: Callable[[], Tensor],
        plan: ExecutionPlan,
        *,
        dropout: Tensor | None,
    ) -> Tensor:
        """Add the update by attention within each row (lines 2 and 4-7).

        Args:
            z: [batch, N_res/dap, N_res, c_z]
            x: [batch, N_res/dap, N_res, c_z], from normalize.
            mask: [batch, N_res/dap, N_res]
            bias: called when the bias [batch, num_heads, N_res, N_res] is needed.
            plan: kernels.
            dropout: dropout mask of the update, from BlockDropout.

        Returns:
            [batch, N_res/dap, N_res, c_z]
        """
        return self.mha(x, mask, bias, plan, residual=z, dropout=dropout)


class TriangleAttentionEndingNode(TriangleAttentionStartingNode):
    """Algorithm 14 (TriangleAttentionEndingNode): Algorithm 13 on the transposed pairs.

    z and its update are sharded over columns: [batch, N_res, N_res/dap, c_z]. Between `normalize`
    and `attend` the pairs are transposed.
    """

    def forward(
        self, z: Tensor, mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Tensor:
        """Add the update to the pair representation; arguments as in the base class."""
        return super().forward(z, mask.transpose(1, 2), dropout, plan)

    def update(
        self, z: Tensor, mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan
    ) -> Tensor:
        """Do `normalize` and `attend` on whole pairs; arguments as for `attend`."""
        dropout = None if dropout is None else dropout.transpose(1, 2)
        return super().update(z.transpose(1, 2), mask, dropout, plan).transpose(1, 2)

    def normalize(self, z: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Transpose and normalize the pairs, and compute their bias; z is not transposed."""
        residual, x, bias = super().normalize(z.transpose(1, 2), plan)
        return residual.transpose(1, 2), x, bias

    def attend(
        self,
        z: Tensor,
        x: Tensor,
        mask: Tensor,
        bias: Callable[[], Tensor],
        plan: ExecutionPlan,
        *,
        dropout: Tensor | None,
    ) -> Tensor:
        """Add the update by attention within each column.

        z: [batch, N_res, N_res/dap, c_z]; mask: [batch, N_res/dap, N_res], of the transposed
            pairs; dropout: [batch, N_res, 1, c_z].
        """
        dropout = None if dropout is None else dropout.transpose(1, 2)
        z = super().attend(z.transpose(1, 2), x, mask, bias, plan, dropout=dropout)
        return z.transpose(1, 2)
