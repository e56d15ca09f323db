"""Transitions of MSA and pair representation."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan


class Transition(nn.Module):
    """Layer normalization and a perceptron that widens the channels `factor`-fold; it looks at one element at a time."""

    def __init__(self, c: int, *, factor: int) -> None:
        super().__init__()
        self.layer_norm = LayerNorm(c)
        self.linear_1 = Linear(c, factor * c, init="relu")
        self.linear_2 = Linear(factor * c, c, init="final")

    def forward(self, x: Tensor, plan: ExecutionPlan) -> Tensor:
        """x: [..., c] -> x with its update added"""
        norm, first, second = self.layer_norm, self.linear_1, self.linear_2
        return plan.kernels.transition(
            x,
            (norm.weight, norm.bias),
            (first.weight, first.bias),
            (second.weight, second.bias),
            eps=norm.eps,
        )


class MSATransition(Transition):
    """Algorithm 9 (MSATransition)."""


class PairTransition(Transition):
    """Algorithm 15 (PairTransition)."""
