"""Gated self-attention without gradient: one C++ kernel between the two projections.

The groups of a tile are divided among PyTorch's threads; the kernel releases the interpreter lock.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.tiles import Scratch, tile_length
from openfold_opt.kernels.interface import LinearWeights

FUSED_HEAD_SIZES = (8, 16, 32)
"""Channels of a head that the kernel supports."""


def fused_attention(
    x: Tensor,
    projection: LinearWeights,
    output: LinearWeights,
    masks: tuple[Tensor, Tensor | None],
    *,
    num_heads: int,
    mask_inf: float,
) -> Tensor:
    """Compute kernels.reference.self_attention without gradient.

    Args:
        x: [batch, groups, N, c], normalized.
        projection: from c to 4 * num_heads * c_head channels.
        output: from num_heads * c_head to c channels.
        masks: mask [batch, groups, N], and bias [batch, num_heads, N, N] or None.
        num_heads: number of heads.
        mask_inf: subtracted from the logits of masked keys.

    Returns:
        [batch, groups, N, c]
    """
    mask, bias = masks
    weight, length = projection.weight, x.shape[2]
    mask_offset = (mask_inf * (mask.float() - 1.0)).expand(x.shape[:3]).contiguous()
    result = x.new_empty(x.shape, dtype=output.weight.dtype)
    scratch, num_threads = Scratch(weight), torch.get_num_threads()
    tile = num_threads * tile_length(length * len(weight) * weight.element_size())
    for sample in range(len(x)):
        sample_bias = None if bias is None else bias[sample].float().contiguous()
        for start in range(0, x.shape[1], tile):
            groups = slice(start, min(start + tile, x.shape[1]))
            rows = x[sample, groups].flatten(0, 1).contiguous().to(weight.dtype)
            joined = torch.mm(rows, weight.t(), out=scratch.take("joined", len(rows), len(weight)))
            gated = scratch.take("gated", len(rows), output.weight.shape[1])
            offsets = (projection.bias, mask_offset[sample, groups], sample_bias)
            _attend(joined, offsets, gated, num_heads, num_threads)
            result_rows = result[sample, groups].flatten(0, 1)
            torch.mm(gated, output.weight.t(), out=result_rows)
            call("add_to_rows", result_rows, output.bias, *result_rows.shape)
    return result


def _attend(
    joined: Tensor,
    offsets: tuple[Tensor, Tensor, Tensor | None],
    gated: Tensor,
    num_heads: int,
    num_threads: int,
) -> None:
    """Write the gated attention of n groups of N elements to `gated`.

    Args:
        joined: projections without bias [n * N, 4 * num_heads * c].
        offsets: bias of the projections, and offsets of the logits for masked keys [n, N] and for
            pairs [num_heads, N, N].
        gated: [n * N, num_heads * c]
        num_heads: number of heads.
        num_threads: number of threads that share the groups.
    """
    projection_bias, mask_offset, bias = offsets
    (num_groups, length), c = mask_offset.shape, gated.shape[1] // num_heads
    step = -(-num_groups // num_threads)

    def attend_part(first: int) -> None:
        masks = mask_offset[first : first + step]
        rows = slice(first * length, (first + len(masks)) * length)
        call(
            *("attend_groups", joined[rows], projection_bias, masks, bias, gated[rows]),
            *(1.0 / math.sqrt(c), len(masks), length, num_heads, c),
        )

    parts = range(0, num_groups, step)
    if len(parts) == 1:
        attend_part(0)
    else:
        list(_threads(num_threads).map(attend_part, parts))


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="attention")
