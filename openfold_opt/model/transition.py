"""Transitions of the MSA and pair representations."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan


class Transition(nn.Module):
    """Layer normalization and a two-layer perceptron with `factor * c` hidden channels."""

    def __init__(self, c: int, *, factor: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c)
        self.linear_1 = Linear(c, factor * c, init="relu")
        self.linear_2 = Linear(factor * c, c, init="final")

    def forward(self, x: Tensor, plan: ExecutionPlan) -> Tensor:
        """Add the update to x [..., c]."""
        return plan.kernels.transition(
            x, self.layer_norm.weights, self.linear_1.weights, self.linear_2.weights
        )


class MSATransition(Transition):
    """Algorithm 9 (MSATransition)."""


class PairTransition(Transition):
    """Algorithm 15 (PairTransition)."""
