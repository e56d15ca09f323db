"""Update of the backbone frames."""

from __future__ import annotations

from torch import Tensor, nn

from openfold_opt.model.linear import Linear


class BackboneUpdate(nn.Module):
    """Algorithm 23 (BackboneUpdate), line 1."""

    def __init__(self, *, c_s: int) -> None:
        super().__init__()
        self.linear = Linear(c_s, 6, init="final")

    def forward(self, s: Tensor) -> Tensor:
        """Map s [batch, N_res, c_s] to [batch, N_res, 6].

        The channels are b, c, d of the quaternion 1 + bi + cj + dk, and a translation.
        """
        return self.linear(s)
