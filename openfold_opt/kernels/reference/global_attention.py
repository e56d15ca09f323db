"""Attention with one query per MSA column and head, for the many rows of the extra MSA."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def global_attention(
    q: Tensor, projected: Tensor, *, num_heads: int, mask: Tensor, mask_inf: float
) -> Tensor:
    """Compute Algorithm 19, lines 5-6: one query per column and head attends to all its rows.

    The caller computes the mean over the rows and the projections (lines 2-4). The gate's sigmoid
    is computed here. The heads share keys and values. A group is a column of the MSA, and N is its
    number of rows.

    Args:
        q: [batch, groups, num_heads * c], the projected mean of the group.
        projected: [batch, groups, N, 2 * c + num_heads * c]: k, v and the gate before its sigmoid,
            concatenated.
        mask: [batch, groups, N], 1 for valid rows.
        mask_inf: subtracted from the logits of masked rows.

    Returns:
        [batch, groups, N, num_heads * c]
    """
    c = q.shape[-1] // num_heads
    k, v, gate = projected.split((c, c, num_heads * c), dim=-1)
    q = q.unflatten(-1, (num_heads, -1))
    logits = torch.matmul(q * math.sqrt(1.0 / q.shape[-1]), k.transpose(-1, -2))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits + (mask_inf * (mask - 1.0))[:, :, None, :]
    weights = torch.softmax(logits, dim=-1)
    output = torch.matmul(weights.to(v.dtype), v).flatten(-2)
    return output[:, :, None, :] * torch.sigmoid(gate)
