"""The gated and masked edges of the triangle multiplications."""

from __future__ import annotations

import torch
from torch import Tensor


def triangle_gate(projected: Tensor, mask: Tensor, *, c_hidden: int) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 11, line 2: a, b = mask * sigmoid(gate) * value, with the channels in front, as the product over edges wants them.

    Args:
        projected: [batch, N_1, N_2, 4 * c_hidden + c_z]: values of a and b, gates of a and b before the sigmoid, and the gate of the
            output (line 3), side by side as one matrix product yields them.
        mask: [batch, N_1, N_2]
        c_hidden: channels of a and of b.

    Returns:
        a, b: [batch, c_hidden, N_1, N_2]; output gate, before its sigmoid: [batch, N_1, N_2, c_z]
    """
    value, gate, output_gate = projected.split((2 * c_hidden, 2 * c_hidden, projected.shape[-1] - 4 * c_hidden), dim=-1)
    a, b = (value * (torch.sigmoid(gate) * mask.unsqueeze(-1).to(gate.dtype))).movedim(-1, 1).chunk(2, dim=1)
    return a, b, output_gate
