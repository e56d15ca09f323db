"""Attention with one query per MSA column and head, for the many rows of the extra MSA."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker


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


@dataclass(frozen=True, kw_only=True)
class GlobalAttentionShapes:
    """Shapes of the arguments of global_attention."""

    batch: int
    groups: int
    """Columns of the MSA."""
    length: int
    """Rows of the MSA."""
    num_heads: int
    c_head: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        inner = self.num_heads * self.c_head
        mask = make.full(self.batch, self.groups, self.length)
        leaves = (
            make.leaf(self.batch, self.groups, inner),
            make.leaf(self.batch, self.groups, self.length, 2 * self.c_head + inner),
        )

        def call(kernel: Kernel) -> Kernel:
            return lambda q, projected: kernel(
                q, projected, num_heads=self.num_heads, mask=mask, mask_inf=1e9
            )

        return Arguments(leaves=leaves, others=(mask,), call=call)
