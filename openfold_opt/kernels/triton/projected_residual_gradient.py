"""Gradients of residual + (x W^T + b) * mask in one launch, and their sums in one more.

With du = dout * mask,

    dx = du W,   dW = du^T x,   db = sum over rows of du.

A program loops over tiles of rows. It forms du in registers and keeps its part of dW there, for a
block of the columns of x. The programs of the other columns of the same rows read dout again, from
a cache. The block is a compromise between these reads and the bytes of the partial sums of dW.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.dropout_residual import leading_strides
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
    row_offsets,
)
from openfold_opt.kernels.triton.partial_sums import sum_partials

MAX_CHANNELS_OUT = 256
"""Largest number of output channels of the projection. A program has all of them in registers."""
PROGRAMS = 132
"""Programs of a launch: one for each multiprocessor of an H200. More would write more sums."""


@triton.jit
def load_masked_gradient(
    dout_ptr,
    mask_ptr,
    rows,
    columns,
    inside,
    size_1,
    size_2,
    dout_stride_0,
    dout_stride_1,
    dout_stride_2,
    mask_stride_0,
    mask_stride_1,
    mask_stride_2,
    mask_stride_c,
    HAS_MASK: tl.constexpr,
):
    """Load dout * mask [rows, columns] in float32, or dout without a mask."""
    dout_rows = row_offsets(rows, size_1, size_2, dout_stride_0, dout_stride_1, dout_stride_2)
    dout = tl.load(dout_ptr + dout_rows[:, None] + columns[None, :], mask=inside, other=0.0)
    dout = dout.to(tl.float32)
    if HAS_MASK:
        mask_rows = row_offsets(rows, size_1, size_2, mask_stride_0, mask_stride_1, mask_stride_2)
        mask_tile = mask_rows[:, None] + columns[None, :] * mask_stride_c
        dout *= tl.load(mask_ptr + mask_tile, mask=inside, other=0.0).to(tl.float32)
    return dout


@triton.jit
def gradient_kernel(
    dout_ptr,  # [size_0, size_1, size_2, c_out] with strides for the first three dims
    mask_ptr,  # as dout, with a stride for the channels; read if HAS_MASK
    x_ptr,  # [rows, c_in] contiguous; rows are numbered over [size_0, size_1, size_2]
    weight_ptr,  # [c_out, c_in] contiguous
    dx_ptr,  # out: as x
    partial_ptr,  # out: [row programs, c_out * c_in + c_out] float32, sums for weight and bias
    num_rows,
    size_1,
    size_2,
    dout_stride_0,
    dout_stride_1,
    dout_stride_2,
    mask_stride_0,
    mask_stride_1,
    mask_stride_2,
    mask_stride_c,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute dx for some tiles of rows and a block of columns, and sums over them."""
    inner = tl.program_id(0) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    columns = tl.arange(0, BLOCK_OUT)
    in_inner, in_columns = inner < C_IN, columns < C_OUT
    in_weight = in_columns[:, None] & in_inner[None, :]
    weight_tile = columns[:, None] * C_IN + inner[None, :]
    weight = tl.load(weight_ptr + weight_tile, mask=in_weight, other=0.0)
    dweight = tl.zeros([BLOCK_IN, BLOCK_OUT], dtype=tl.float32)
    dbias = tl.zeros([BLOCK_OUT], dtype=tl.float32)
    step = tl.num_programs(1) * BLOCK_ROWS
    for first in range(tl.program_id(1) * BLOCK_ROWS, num_rows, step):
        rows = first + tl.arange(0, BLOCK_ROWS)
        in_rows = rows < num_rows
        inside = in_rows[:, None] & in_columns[None, :]
        dupdate = load_masked_gradient(
            *(dout_ptr, mask_ptr, rows, columns, inside, size_1, size_2),
            *(dout_stride_0, dout_stride_1, dout_stride_2),
            *(mask_stride_0, mask_stride_1, mask_stride_2, mask_stride_c, HAS_MASK),
        )
        dbias += tl.sum(dupdate, axis=0)
        dupdate = dupdate.to(weight.dtype)
        x_tile = rows.to(tl.int64)[:, None] * C_IN + inner[None, :]
        in_x = in_rows[:, None] & in_inner[None, :]
        x = tl.load(x_ptr + x_tile, mask=in_x, other=0.0)
        dweight = tl.dot(tl.trans(x), dupdate, dweight, input_precision=PRECISION)
        dx = tl.dot(tl.trans(weight), tl.trans(dupdate), input_precision=PRECISION)
        tl.store(dx_ptr + x_tile, tl.trans(dx.to(dx_ptr.dtype.element_ty)), mask=in_x)
    partial = partial_ptr + tl.program_id(1).to(tl.int64) * (C_OUT * C_IN + C_OUT)
    tl.store(partial + weight_tile, tl.trans(dweight), mask=in_weight)
    if tl.program_id(0) == 0:
        tl.store(partial + C_OUT * C_IN + columns, dbias, mask=in_columns)


def _constants(weight: Tensor) -> Options:
    c_out, c_in = weight.shape
    is_float32 = weight.dtype == torch.float32
    block_out = max(MIN_DOT_SIZE, next_power_of_2(c_out))
    is_wide = block_out > 128
    return {
        "C_IN": c_in,
        "C_OUT": c_out,
        # Float32 needs twice the bytes of bfloat16, in registers and in shared memory.
        "BLOCK_IN": max(MIN_DOT_SIZE, min(32 if is_float32 else 64, next_power_of_2(c_in))),
        "BLOCK_OUT": block_out,
        "BLOCK_ROWS": 32 if is_float32 or is_wide else 64,
        "PRECISION": dot_precision(weight.dtype),
        "num_warps": 8 if is_wide else 4,
        # Smaller tiles are loaded further ahead.
        "num_stages": 3 if is_wide and not is_float32 else 2,
    }


@fused_op
def projected_residual_gradient(
    dout: Tensor, x: Tensor, weight: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the gradients.

    dout, mask: [size_0, size_1, size_2, c_out]; x: [size_0, size_1, size_2, c_in] contiguous, in
    the dtype of weight.

    Returns:
        dx as x; partial sums [programs, c_out * c_in + c_out] float32 for weight and bias.
    """
    c_out, c_in = weight.shape
    num_rows = dout.shape[0] * dout.shape[1] * dout.shape[2]
    constants = _constants(weight)
    column_blocks = divide_up(c_in, constants["BLOCK_IN"])
    row_blocks = divide_up(num_rows, constants["BLOCK_ROWS"])
    row_programs = max(1, min(row_blocks, PROGRAMS // column_blocks))
    dx = torch.empty_like(x)
    partial = torch.empty(
        row_programs, c_out * c_in + c_out, dtype=torch.float32, device=weight.device
    )
    launch(
        gradient_kernel,
        # The programs of the same rows are next to each other and share dout in a cache.
        (column_blocks, row_programs),
        *(dout, weight.new_empty(0) if mask is None else mask, x, weight, dx, partial),
        *(num_rows, *dout.shape[1:3], *leading_strides(dout)),
        *((0, 0, 0, 0) if mask is None else mask.stride()),
        **constants,
        HAS_MASK=mask is not None,
    )
    return dx, partial


def projection_gradients(
    partial: Tensor, weight: Tensor, bias_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight [c_out, c_in] and bias from their partial sums, side by side.

    partial: [programs, c_out * c_in + c_out] float32.
    """
    sums = sum_partials(partial, weight.dtype)
    dweight, dbias = sums.split((weight.numel(), len(weight)))
    return dweight.view_as(weight), dbias.to(bias_dtype)
