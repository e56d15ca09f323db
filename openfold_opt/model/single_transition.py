"""Transition of the single representation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.model.plan import ExecutionPlan


class SingleTransition(nn.Module):
    """Algorithm 20, lines 8-9."""

    def __init__(self, *, c_s: int) -> None:
        super().__init__()
        self.linear_1 = Linear(c_s, c_s, init="relu")
        self.linear_2 = Linear(c_s, c_s, init="relu")
        self.linear_3 = Linear(c_s, c_s, init="final")
        self.layer_norm = LayerNorm(c_s)

    def forward(self, s: Tensor, dropout_mask: Tensor | None, plan: ExecutionPlan) -> Tensor:
        """Update s [batch, N_res, c_s]; dropout_mask has the same shape, or is None."""
        s = s + self.linear_3(F.relu(self.linear_2(F.relu(self.linear_1(s)))))
        return self.layer_norm(s if dropout_mask is None else s * dropout_mask, plan)
