"""Prediction of torsion angles from the single representation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.model.linear import Linear

NUM_ANGLES = 7


class AngleResnetBlock(nn.Module):
    """Algorithm 20, line 13."""

    def __init__(self, c_hidden: int) -> None:
        super().__init__()
        self.linear_1 = Linear(c_hidden, c_hidden, init="relu")
        self.linear_2 = Linear(c_hidden, c_hidden, init="final")

    def forward(self, a: Tensor) -> Tensor:
        """Update a: [..., c_hidden]."""
        return a + self.linear_2(F.relu(self.linear_1(F.relu(a))))


class AngleResnet(nn.Module):
    """Algorithm 20, lines 11-14."""

    def __init__(self, *, c_s: int, c_hidden: int, num_blocks: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.linear_in = Linear(c_s, c_hidden)
        self.linear_initial = Linear(c_s, c_hidden)
        self.layers = nn.ModuleList(AngleResnetBlock(c_hidden) for _ in range(num_blocks))
        self.linear_out = Linear(c_hidden, 2 * NUM_ANGLES)

    def forward(self, s: Tensor, s_initial: Tensor) -> tuple[Tensor, Tensor]:
        """Predict sine and cosine of the torsion angles.

        Args:
            s: [..., c_s]
            s_initial: broadcastable to s.

        Returns:
            Unnormalized and normalized angles, both [..., 7, 2].
        """
        a = self.linear_in(F.relu(s)) + self.linear_initial(F.relu(s_initial))
        for layer in self.layers:
            a = layer(a)
        unnormalized = self.linear_out(F.relu(a)).unflatten(-1, (NUM_ANGLES, 2))
        norm = unnormalized.square().sum(-1, keepdim=True).clamp(min=self.eps).sqrt()
        return unnormalized, unnormalized / norm
