"""Dropout masks of all blocks of a stack in one launch, bit-identical to the reference."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import divide_up, fused_op, launch

BLOCK_COUNTERS = 256


@triton.jit
def _mask_kernel(
    key_ptr,  # [2] int64: seed, optimizer step; only the low 32 bits are used
    sites_ptr,  # [num_sites] int64
    slots_ptr,  # [batch] int64
    out_ptr,  # [num_sites, batch, size] float32
    batch,
    size,
    pass_index,
    threshold,  # elements with words of at least this value are kept
    kept_value,
    BLOCK: tl.constexpr,
):
    counters = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    site = tl.load(sites_ptr + row // batch).to(tl.uint32)
    slot = tl.load(slots_ptr + row % batch).to(tl.uint32)
    seed = tl.load(key_ptr).to(tl.uint64) & 0xFFFFFFFF
    step = tl.load(key_ptr + 1).to(tl.uint64) & 0xFFFFFFFF
    zero = tl.zeros([BLOCK], dtype=tl.uint32)
    words = tl.philox(
        (step << 32) | seed,
        counters.to(tl.uint32),
        zero + site,
        zero + slot,
        zero + pass_index,
        n_rounds=10,
    )
    start = row.to(tl.int64) * size
    for index in tl.static_range(4):
        elements = counters * 4 + index
        kept = words[index].to(tl.int64) >= threshold
        tl.store(out_ptr + start + elements, tl.where(kept, kept_value, 0.0), mask=elements < size)


@fused_op
def random_mask(
    key: Tensor, sites: Tensor, slots: Tensor, pass_index: int, size: int, rate: float
) -> Tensor:
    """Return masks [num_sites, batch, size] float32. key: [2] int64."""
    out = torch.empty(len(sites), len(slots), size, dtype=torch.float32, device=slots.device)
    grid = (divide_up(divide_up(size, 4), BLOCK_COUNTERS), len(sites) * len(slots))
    # Python numbers, as in the reference: the threshold is exact, and the value has its rounding.
    constants = (len(slots), size, pass_index, math.floor(rate * 2**32), 1.0 / (1.0 - rate))
    launch(
        _mask_kernel, grid, key, sites, slots, out, *constants, BLOCK=BLOCK_COUNTERS, num_warps=4
    )
    return out


def dropout_masks(
    key: tuple[Tensor | int, Tensor | int],
    sites: Tensor,
    slots: Tensor,
    *,
    pass_index: int,
    shape: tuple[int, ...],
    rate: float,
) -> Tensor:
    """Compute kernels.reference.dropout_masks in one launch."""
    device = slots.device
    words = torch.stack([torch.as_tensor(word, dtype=torch.int64, device=device) for word in key])
    return random_mask(words, sites, slots, pass_index, math.prod(shape), rate).unflatten(-1, shape)
