"""Gated multi-head attention with a mask over keys and a bias shared by all groups.

The operation covers row and column attention over an MSA (Algorithms 7, 8) and triangle attention
(13, 14). A *group* is a set of elements that attend to each other: an MSA row, an MSA column, or
all edges that leave (enter) one residue.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention(
    projected: Tensor, *, num_heads: int, mask: Tensor, mask_inf: float, bias: Tensor | None = None
) -> Tensor:
    """Compute softmax(q k^T / sqrt(c) + (mask - 1) mask_inf + bias) v * sigmoid(gate).

    The mask term is finite, so that the result of a group whose keys are all masked is not NaN.

    Args:
        projected: [batch, groups, N, 4 * num_heads * c]: q, k, v and the gate before its sigmoid,
            concatenated as one matrix product yields them.
        mask: [batch, groups, N], 1 where a key exists, else 0.
        mask_inf: subtracted from the logits of keys that do not exist.
        bias: [batch, num_heads, N, N], added to the logits of every group.

    Returns:
        [batch, groups, N, num_heads * c]
    """
    *qkv, gate = projected.chunk(4, dim=-1)
    q, k, v = (_split_heads(x, num_heads) for x in qkv)
    logits = torch.matmul(q * (1.0 / math.sqrt(q.shape[-1])), k.transpose(-1, -2))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    logits = logits + (mask_inf * (mask - 1.0))[:, :, None, None, :]
    if bias is not None:
        logits = logits + bias[:, None]
    weights = torch.softmax(logits, dim=-1)
    output = torch.matmul(weights.to(v.dtype), v).transpose(-2, -3).flatten(-2)
    return output * torch.sigmoid(gate)


def _split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Return x [..., N, num_heads * c] as [..., num_heads, N, c]."""
    return x.unflatten(-1, (num_heads, -1)).transpose(-2, -3)
