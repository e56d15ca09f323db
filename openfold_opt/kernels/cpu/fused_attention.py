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
    sizes: tuple[int, float],
    mask: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Compute kernels.reference.self_attention without gradient.

    Args:
        x: [batch, groups, N, c], normalized.
        projection: from c to 4 * num_heads * c_head channels.
        output: from num_heads * c_head to c channels.
        sizes: num_heads, and the number subtracted from the logits of masked keys.
        mask: [batch, groups, N]
        bias: [batch, num_heads, N, N] or None.

    Returns:
        [batch, groups, N, c]
    """
    num_heads, mask_inf = sizes
    weight, length = projection.weight, x.shape[2]
    c = len(weight) // (4 * num_heads)
    mask_offset = (mask_inf * (mask.float() - 1.0)).expand(x.shape[:3]).contiguous()
    bias = None if bias is None else bias.float().contiguous()
    result = x.new_empty(x.shape, dtype=output.weight.dtype)
    scratch, num_threads = Scratch(weight), torch.get_num_threads()
    tile = num_threads * tile_length(length * len(weight) * weight.element_size())
    for sample in range(len(x)):
        sample_bias = None if bias is None else bias[sample]
        for start in range(0, x.shape[1], tile):
            groups = slice(start, min(start + tile, x.shape[1]))
            rows = x[sample, groups].flatten(0, 1).contiguous().to(weight.dtype)
            joined = torch.mm(rows, weight.t(), out=scratch.take("joined", len(rows), len(weight)))
            gated = scratch.take("gated", len(rows), num_heads * c)
            offsets = mask_offset[sample, groups]

            def attend(part: slice) -> None:
                own = slice(part.start * length, part.stop * length)
                call(
                    *("attend_groups", joined[own], projection.bias, offsets[part], sample_bias),
                    *(gated[own], 1.0 / math.sqrt(c), part.stop - part.start, length),
                    *(num_heads, c),
                )

            _run_in_threads(attend, len(offsets), num_threads)
            result_rows = result[sample, groups].flatten(0, 1)
            torch.mm(gated, output.weight.t(), out=result_rows)
            call("add_to_rows", result_rows, output.bias, *result_rows.shape)
    return result


def _run_in_threads(work, count: int, num_threads: int) -> None:
    """Call work with slices that divide range(count), one for each thread."""
    step = -(-count // num_threads)
    parts = [slice(start, min(start + step, count)) for start in range(0, count, step)]
    if len(parts) == 1:
        work(parts[0])
    else:
        list(_pool(num_threads).map(work, parts))


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="attention")
