"""Triangular multiplicative updates of the pair representation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear, project_together
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import gather_for_shards


class TriangleMultiplication(nn.Module):
    """What Algorithms 11 and 12 share."""

    is_outgoing: bool

    def __init__(self, c_z: int, *, c_hidden: int) -> None:
        super().__init__()
        self.c_hidden = c_hidden
        self.linear_a_p = Linear(c_z, c_hidden)
        self.linear_a_g = Linear(c_z, c_hidden, init="gating")
        self.linear_b_p = Linear(c_z, c_hidden)
        self.linear_b_g = Linear(c_z, c_hidden, init="gating")
        self.linear_g = Linear(c_z, c_z, init="gating")
        self.linear_z = Linear(c_hidden, c_z, init="final")
        self.layer_norm_in = LayerNorm(c_z)
        self.layer_norm_out = LayerNorm(c_hidden)

    def forward(self, z: Tensor, mask: Tensor, dropout: Tensor | None, plan: ExecutionPlan) -> Tensor:
        """The pair representation with its update added.

        Args:
            z: [batch, N_res/dap, N_res, c_z] (outgoing: rows) or [batch, N_res, N_res/dap, c_z] (incoming: columns)
            mask: the same without c_z.
            dropout: mask of the update, from BlockDropout.

        Returns:
            The shape of z.
        """
        linears = (self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g, self.linear_g)
        projected = project_together(self.layer_norm_in(z, plan), *linears)
        a, b, output_gate = plan.kernels.triangle_gate(projected, mask, c_hidden=self.c_hidden)
        # x_ij needs all edges of the other residue: of j for rows i, of i for columns j.
        if self.is_outgoing:
            x = torch.matmul(a, gather_for_shards(b, plan.dap, dim=2).transpose(-1, -2))
        else:
            x = torch.matmul(gather_for_shards(a, plan.dap, dim=3).transpose(-1, -2), b)
        update = self.linear_z(self.layer_norm_out(x.movedim(1, -1), plan))
        return plan.kernels.dropout_residual(z, update, dropout, gate=output_gate)


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing)."""

    is_outgoing = True


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming). As in the paper's code, a goes with i and b with j."""

    is_outgoing = False
