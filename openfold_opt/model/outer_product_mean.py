"""Update of the pair representation from the MSA."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.model.linear import JoinedLinears, LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan


class OuterProductMean(nn.Module):
    """Algorithm 10 (OuterProductMean)."""

    stages: ClassVar[tuple[str, ...]] = ("project", "update")

    def __init__(self, c_m: int, c_z: int, *, c_hidden: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c_m)
        self.c_hidden = c_hidden
        self.linear_1 = Linear(c_m, c_hidden)
        self.linear_2 = Linear(c_m, c_hidden)
        self._joined = JoinedLinears(self.linear_1, self.linear_2)
        self.linear_out = Linear(c_hidden * c_hidden, c_z, init="final")

    def forward(
        self, m: Tensor, mask: Tensor, z: Tensor, norm: Tensor, plan: ExecutionPlan
    ) -> Tensor:
        """Add the update from the MSA to z.

        Args:
            m: [batch, N_seq, N_res, c_m]
            mask: [batch, N_seq, N_res]
            z: [batch, N_res, N_res, c_z]
            norm: [batch, N_res, N_res, 1] from `outer_product_norm`.
            plan: kernels.

        Returns:
            [batch, N_res, N_res, c_z]
        """
        _, a, b = self.project(m, mask, self.projection(), plan)
        return self.update(z, (a, b), norm, plan)

    def projection(self) -> LinearWeights:
        """Return the joined parameters of the projections to a and b."""
        return self._joined.weights

    def project(
        self,
        m: Tensor,
        mask: Tensor,
        projection: LinearWeights,
        plan: ExecutionPlan,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute both factors of the product (lines 1-2).

        Args:
            m: [batch, N_seq, N_res/dap, c_m]
            mask: [batch, N_seq, N_res/dap]
            projection: from `projection`, which is called once for all chunks.
            plan: kernels.

        Returns:
            m for further use, a and b: [batch, N_seq, N_res/dap, c_hidden]
        """
        m, ab = self.layer_norm.project_normalized(m, projection, plan)
        a, b = (ab * mask.unsqueeze(-1).to(ab.dtype)).chunk(2, dim=-1)
        return m, a, b

    def project_side(
        self, m: Tensor, mask: Tensor, side: Literal["a", "b"], plan: ExecutionPlan
    ) -> Tensor:
        """Compute one factor of the product; arguments as `project`."""
        linear = {"a": self.linear_1, "b": self.linear_2}[side]
        _, projected = self.layer_norm.project_normalized(m, linear.weights, plan)
        return projected * mask.unsqueeze(-1).to(projected.dtype)

    def update(
        self, z: Tensor, sides: tuple[Tensor, Tensor], norm: Tensor, plan: ExecutionPlan
    ) -> Tensor:
        """Add the projected mean of the outer products to z (lines 3-4).

        Args:
            z: [batch, N_res/dap, N_res, c_z]
            sides: a [batch, N_seq, N_res/dap, c_hidden] and b [batch, N_seq, N_res, c_hidden].
            norm: [batch, N_res/dap, N_res, 1] from `outer_product_norm`.
            plan: kernels.

        Returns:
            [batch, N_res/dap, N_res, c_z]
        """
        return plan.kernels.outer_product_mean(z, sides, self.linear_out.weights, norm)


def outer_product_norm(mask_col: Tensor, mask: Tensor, *, eps: float) -> Tensor:
    """Count the sequences that cover both residues of a pair, plus eps.

    The result is the same for all blocks of a stack.

    Args:
        mask_col: [batch, N_seq, N_res/dap]
        mask: [batch, N_seq, N_res]
        eps: added to the count.

    Returns:
        [batch, N_res/dap, N_res, 1]
    """
    return (torch.matmul(mask_col.transpose(1, 2), mask) + eps).unsqueeze(-1)
