"""Triangular multiplicative updates of the pair representation."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from openfold_opt.kernels.interface import LinearWeights, TriangleWeights
from openfold_opt.model.linear import JoinedLinears, LayerNorm, Linear, concatenate_parameters
from openfold_opt.model.plan import ExecutionPlan


class TriangleMultiplication(nn.Module):
    """Base of Algorithms 11 and 12, which differ in the edges that they multiply.

    On a shard, outgoing edges need whole rows of z and incoming edges whole columns.
    """

    stages: ClassVar[tuple[str, ...]] = ("edges", "update")
    is_outgoing: ClassVar[bool]

    def __init__(self, c_z: int, *, c_hidden: int) -> None:
        super().__init__()
        self.c_hidden = c_hidden
        self.linear_a_p = Linear(c_z, c_hidden)
        self.linear_a_g = Linear(c_z, c_hidden, init="gating")
        self.linear_b_p = Linear(c_z, c_hidden)
        self.linear_b_g = Linear(c_z, c_hidden, init="gating")
        self.linear_g = Linear(c_z, c_z, init="gating")
        self.linear_z = Linear(c_hidden, c_z, init="final")
        self._joined = JoinedLinears(
            self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g, self.linear_g
        )
        self.layer_norm_in = LayerNorm(c_z)
        self.layer_norm_out = LayerNorm(c_hidden)

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
        if plan.kernels.triangle_multiplication is not None:
            weights = TriangleWeights(
                norm=self.layer_norm_in.weights,
                projection=self.projection(),
                output_norm=self.layer_norm_out.weights,
                output=self.linear_z.weights,
            )
            return plan.kernels.triangle_multiplication(
                z, mask, dropout, weights, is_outgoing=self.is_outgoing
            )
        z, a, b, gate = self.edges(z, mask, self.projection(), plan)
        return self.update(z, (a, b, gate), dropout, plan)

    def projection(self) -> LinearWeights:
        """Return the joined parameters of the projections to edges and gates."""
        return self._joined.weights

    def edges(
        self,
        z: Tensor,
        mask: Tensor,
        projection: LinearWeights,
        plan: ExecutionPlan,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the edges and the gate of the update (lines 1-3).

        Args:
            z: [batch, N_res/dap, N_res, c_z] (outgoing) or [batch, N_res, N_res/dap, c_z]
                (incoming).
            mask: the shape of z without c_z.
            projection: from `projection`, which is called once for all chunks.
            plan: kernels.

        Returns:
            z for the residual, a and b: [batch, c_hidden, ..] with the residue dims of z, and the
            gate in the shape of z.
        """
        return plan.kernels.triangle_edges(
            z, self.layer_norm_in.weights, projection, mask, c_hidden=self.c_hidden
        )

    def update(
        self,
        z: Tensor,
        edges: tuple[Tensor, Tensor, Tensor],
        dropout: Tensor | None,
        plan: ExecutionPlan,
    ) -> Tensor:
        """Add the update to z (line 4).

        Args:
            z: [batch, N_i, N_j, c_z], the edges ij to update.
            edges: a and b, and the gate in the shape of z. Outgoing: a [batch, c_hidden, N_i,
                N_res] and b [batch, c_hidden, N_j, N_res]. Incoming: a [batch, c_hidden, N_res,
                N_i] and b [batch, c_hidden, N_res, N_j].
            dropout: dropout mask of the update, from BlockDropout.
            plan: kernels.

        Returns:
            [batch, N_i, N_j, c_z]
        """
        return plan.kernels.triangle_update(
            z,
            edges,
            self.layer_norm_out.weights,
            self.linear_z.weights,
            dropout,
            is_outgoing=self.is_outgoing,
        )

    # The stages below are those of a prediction, which keeps the edges of one side only
    # (predict/schedule/triangles.py).

    def side_projection(self, side: Literal["a", "b"], *, with_gate: bool = False) -> LinearWeights:
        """Concatenate the parameters of one side, and of the gate of the update if with_gate."""
        sides = {"a": (self.linear_a_p, self.linear_a_g), "b": (self.linear_b_p, self.linear_b_g)}
        return concatenate_parameters(*sides[side], *([self.linear_g] if with_gate else []))

    def group_projection(self, channels: slice) -> LinearWeights:
        """Concatenate the parameters of some channels of both sides."""
        linears = (self.linear_a_p, self.linear_b_p, self.linear_a_g, self.linear_b_g)
        return LinearWeights(
            torch.cat([linear.weight[channels] for linear in linears]),
            torch.cat([linear.bias[channels] for linear in linears]),
        )

    def side(
        self,
        z: Tensor,
        mask: Tensor,
        projection: LinearWeights,
        out: Tensor,
        plan: ExecutionPlan,
    ) -> Tensor:
        """Compute the edges of one side.

        Args:
            z: [batch, N_1, N_2, c_z]
            mask: [batch, N_1, N_2]
            projection: from side_projection or group_projection.
            out: [batch, c, N_1, N_2], receives the edges.
            plan: kernels.

        Returns:
            The gate of the update [batch, N_1, N_2, c_z], or [batch, N_1, N_2, 0] if the projection
            has none.
        """
        return plan.kernels.triangle_side(z, self.layer_norm_in.weights, projection, mask, out=out)

    def gate(self, z: Tensor, plan: ExecutionPlan) -> Tensor:
        """Compute the gate of the update of z [batch, N_1, N_2, c_z], before its sigmoid."""
        return self.layer_norm_in.project_normalized(z, self.linear_g.weights, plan)[1]

    def add_product(self, z: Tensor, product: Tensor, gate: Tensor, plan: ExecutionPlan) -> None:
        """Update z [batch, N_1, N_2, c_z] in place.

        product: sum over the third residue [batch, c_hidden, N_1, N_2]; gate: of the update, in the
            shape of z.
        """
        plan.kernels.triangle_product(
            z, product, gate, self.layer_norm_out.weights, self.linear_z.weights
        )


class TriangleMultiplicationOutgoing(TriangleMultiplication):
    """Algorithm 11 (TriangleMultiplicationOutgoing)."""

    is_outgoing = True


class TriangleMultiplicationIncoming(TriangleMultiplication):
    """Algorithm 12 (TriangleMultiplicationIncoming).

    As in the code of the paper, a belongs to i and b belongs to j.
    """

    is_outgoing = False
