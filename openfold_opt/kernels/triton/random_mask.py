"""Dropout masks of all blocks of a stack in one launch: Philox4x32-10, word for word that of the plain version."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launch import divide_up, fused_op, launch

BLOCK_COUNTERS = 256


@triton.jit
def _mask_kernel(
    key_ptr,  # [2] int64: seed, optimizer step; their low 32 bits count
    offsets_ptr,  # [num_places] int64
    slots_ptr,  # [batch] int64
    out_ptr,  # [num_places, batch, size] float32
    batch,
    size,
    pass_index,
    threshold,  # words from it on are kept
    kept_value,
    BLOCK: tl.constexpr,
):
    counters = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    line = tl.program_id(1)
    place = tl.load(offsets_ptr + line // batch).to(tl.uint32)
    slot = tl.load(slots_ptr + line % batch).to(tl.uint32)
    seed = tl.load(key_ptr).to(tl.uint64) & 0xFFFFFFFF
    step = tl.load(key_ptr + 1).to(tl.uint64) & 0xFFFFFFFF
    zero = tl.zeros([BLOCK], dtype=tl.uint32)
    words = tl.philox(
        (step << 32) | seed,
        counters.to(tl.uint32),
        zero + place,
        zero + slot,
        zero + pass_index,
        n_rounds=10,
    )
    start = line.to(tl.int64) * size
    for index in tl.static_range(4):
        elements = counters * 4 + index
        kept = words[index].to(tl.int64) >= threshold
        tl.store(out_ptr + start + elements, tl.where(kept, kept_value, 0.0), mask=elements < size)


@fused_op
def random_mask(
    key: Tensor, places: Tensor, slots: Tensor, pass_index: int, size: int, rate: float
) -> Tensor:
    """[num_places, batch, size] float32. key: [2] int64."""
    out = torch.empty(len(places), len(slots), size, dtype=torch.float32, device=slots.device)
    grid = (divide_up(divide_up(size, 4), BLOCK_COUNTERS), len(places) * len(slots))
    # a Python number, as the plain version takes it: the threshold is exact, the value that of the plain version's rounding
    constants = (len(slots), size, pass_index, math.floor(rate * 2**32), 1.0 / (1.0 - rate))
    launch(
        _mask_kernel, grid, key, places, slots, out, *constants, BLOCK=BLOCK_COUNTERS, num_warps=4
    )
    return out


def dropout_masks(
    key: tuple[Tensor | int, Tensor | int],
    places: Tensor,
    slots: Tensor,
    *,
    pass_index: int,
    shape: tuple[int, ...],
    rate: float,
) -> Tensor:
    """kernels.reference.random_mask.dropout_masks in one launch."""
    device = slots.device
    words = torch.stack([torch.as_tensor(word, dtype=torch.int64, device=device) for word in key])
    return random_mask(words, places, slots, pass_index, math.prod(shape), rate).unflatten(
        -1, shape
    )
