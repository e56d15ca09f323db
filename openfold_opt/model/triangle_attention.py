"""Triangular self-attention of the pair representation."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.gated_attention import GatedSelfAttention
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import gather


class TriangleAttentionStartingNode(nn.Module):
    """Algorithm 13 (TriangleAttentionStartingNode): the edges that leave one residue attend to each other."""

    def __init__(self, c_z: int, *, c_hidden: int, num_heads: int, mask_inf: float) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_z)
        self.linear = Linear(c_z, num_heads, bias=False, init="normal")
        self.mha = GatedSelfAttention(c_z, c_hidden=c_hidden, num_heads=num_heads, mask_inf=mask_inf)

    def forward(self, z: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """z: [batch, N_res/dap, N_res, c_z]; mask: [batch, N_res/dap, N_res] -> update in the shape of z"""
        z = self.layer_norm(z, plan)
        bias = gather(self.linear(z).movedim(-1, 1), plan.dap, dim=2, length=z.shape[2], what="triangle bias")
        return self.mha(z, mask, bias, plan)


class TriangleAttentionEndingNode(TriangleAttentionStartingNode):
    """Algorithm 14 (TriangleAttentionEndingNode): Algorithm 13 on the transposed pair representation."""

    def forward(self, z: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """z: [batch, N_res, N_res/dap, c_z]; mask: [batch, N_res, N_res/dap] -> update in the shape of z"""
        return super().forward(z.transpose(1, 2), mask.transpose(1, 2), plan).transpose(1, 2)
