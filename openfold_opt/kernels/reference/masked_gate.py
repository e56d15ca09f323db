"""A gated and masked projection."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_gate(value: Tensor, gate: Tensor, mask: Tensor) -> Tensor:
    """value * sigmoid(gate) * mask (Algorithm 11, line 2).

    Args:
        value, gate: [..., c]; the gate before the sigmoid.
        mask: [...]
    """
    return value * (torch.sigmoid(gate) * mask.unsqueeze(-1))
