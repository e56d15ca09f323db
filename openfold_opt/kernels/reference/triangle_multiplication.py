"""The sum over the third edge of every triangle."""

from __future__ import annotations

import torch
from torch import Tensor


def triangle_multiplication(a: Tensor, b: Tensor, *, outgoing: bool) -> Tensor:
    """Algorithm 11, line 4 (outgoing): x_ij = sum_k a_ik b_jk; Algorithm 12 (incoming): x_ij = sum_k a_ki b_kj.

    In float32 inside. Under axial parallelism one of the two holds all rows (columns) and the other a shard.

    Args:
        a: [batch, N_i, N_k, c] (outgoing) or [batch, N_k, N_i, c] (incoming)
        b: [batch, N_j, N_k, c] (outgoing) or [batch, N_k, N_j, c] (incoming)

    Returns:
        x: [batch, N_i, N_j, c]
    """
    a, b = a.movedim(-1, 1), b.movedim(-1, 1)
    x = torch.matmul(a, b.transpose(-1, -2)) if outgoing else torch.matmul(a.transpose(-1, -2), b)
    return x.movedim(1, -1)
