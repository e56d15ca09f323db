"""Triangular multiplicative updates of the pair representation."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear, joined_parameters
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.collectives import gather


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
        norm_in, norm_out = self.layer_norm_in, self.layer_norm_out
        a, b, gate = plan.kernels.triangle_edges(
            z, (norm_in.weight, norm_in.bias), joined_parameters(*linears), mask, c_hidden=self.c_hidden, eps=norm_in.eps
        )
        # x_ij needs all edges of the other residue: of j for rows i, of i for columns j.
        if self.is_outgoing:
            b = gather(b, plan.dap, dim=2, length=z.shape[2], what="outgoing edges")
        else:
            a = gather(a, plan.dap, dim=3, length=z.shape[1], what="incoming edges")
        return plan.kernels.triangle_update(
            z,
            (a, b, gate),
            (norm_out.weight, norm_out.bias),
            (self.linear_z.weight, self.linear_z.bias),
            dropout,
            is_outgoing=self.is_outgoing,
            eps=norm_out.eps,
        )


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing)."""

    is_outgoing = True


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming). As in the paper's code, a goes with i and b with j."""

    is_outgoing = False
