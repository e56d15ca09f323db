"""Triangular multiplicative updates of the pair representation."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear, project_together
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import gather_for_shards


class TriangleMultiplication(nn.Module):
    """What Algorithms 11 and 12 share."""

    is_outgoing: bool

    def __init__(self, c_z: int, *, c_hidden: int) -> None:
        super().__init__()
        self.sizes = (2 * c_hidden, 2 * c_hidden, c_z)
        self.linear_a_p = Linear(c_z, c_hidden)
        self.linear_a_g = Linear(c_z, c_hidden, init="gating")
        self.linear_b_p = Linear(c_z, c_hidden)
        self.linear_b_g = Linear(c_z, c_hidden, init="gating")
        self.linear_g = Linear(c_z, c_z, init="gating")
        self.linear_z = Linear(c_hidden, c_z, init="final")
        self.layer_norm_in = LayerNorm(c_z)
        self.layer_norm_out = LayerNorm(c_hidden)

    def forward(self, z: Tensor, mask: Tensor, plan: ExecutionPlan) -> Tensor:
        """Update of the pair representation.

        Args:
            z: [batch, N_res/dap, N_res, c_z] (outgoing: rows) or [batch, N_res, N_res/dap, c_z] (incoming: columns)
            mask: the same without c_z.

        Returns:
            The shape of z.
        """
        z = self.layer_norm_in(z, plan)
        linears = (self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g, self.linear_g)
        value, gate, output_gate = project_together(z, linears, self.sizes)
        a, b = plan.kernels.masked_gate(value, gate, mask).chunk(2, dim=-1)
        # x_ij needs all edges of the other residue: of j for rows i, of i for columns j.
        if self.is_outgoing:
            b = gather_for_shards(b, plan.dap, dim=1)
        else:
            a = gather_for_shards(a, plan.dap, dim=2)
        x = plan.kernels.triangle_multiplication(a, b, outgoing=self.is_outgoing)
        x = self.linear_z(self.layer_norm_out(x, plan))
        return x * output_gate.sigmoid()


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing)."""

    is_outgoing = True


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming). As in the paper's code, a goes with i and b with j."""

    is_outgoing = False
