"""Layer normalization in one pass over memory, without atomics in the backward pass.

Statistics are float32. The leading dims of x may have any strides: `Rows` merges them into at most
three, or copies x. y = (x - mean) * rstd * weight +
bias with rstd = 1 / sqrt(variance + eps). With g = dy * weight and n = (x - mean) * rstd,

    dx = rstd * (g - mean(g) - n * mean(g * n)),
    dweight = sum over rows of dy * n,   dbias = sum over rows of dy.

Each program of the backward pass loops over many rows and writes partial sums for weight and bias,
which are then summed in a fixed order. If x is also a residual (residual_norm), its other gradient
is added to dx there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import (
    Rows,
    divide_up,
    fused_op,
    launch,
    next_power_of_2,
    row_offsets,
)

ELEMENTS_PER_PROGRAM = 4096
"""Elements of x in a block of rows."""
MAX_PARTIAL_SUMS = 512
"""Largest number of programs of the backward pass, each with partial sums [2, c]; a few for each
multiprocessor of a GPU."""


@triton.jit
def centered_rows(tile, inside, eps, C: tl.constexpr):
    """Load rows of C channels. Return x - mean [rows, columns], mean [rows] and rstd [rows].

    tile: addresses; inside: mask of what exists.
    """
    x = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=1) / C
    centered = tl.where(inside, x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centered * centered, axis=1) / C + eps)
    return centered, mean, rstd


@triton.jit
def input_gradient(dy, normalized, rstd, weight, C: tl.constexpr):
    """Return the gradient [rows, columns] of the input of the normalization."""
    g = dy * weight[None, :]
    mean_g = tl.sum(g, axis=1) / C
    mean_gn = tl.sum(g * normalized, axis=1) / C
    return rstd[:, None] * (g - mean_g[:, None] - normalized * mean_gn[:, None])


@triton.jit
def _forward_kernel(
    x_ptr,  # [size_0, size_1, size_2, c] with strides
    weight_ptr,  # [c]
    bias_ptr,  # [c]
    y_ptr,  # out: [rows, c] contiguous
    mean_ptr,  # out: [rows] float32
    rstd_ptr,  # out: [rows] float32
    num_rows,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    channel_stride,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_C)
    in_rows, in_columns = rows < num_rows, columns < C
    inside = in_rows[:, None] & in_columns[None, :]
    offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
    x_offsets = offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
    centered, mean, rstd = centered_rows(x_ptr + x_offsets, inside, eps, C)
    weight = tl.load(weight_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    y = centered * rstd[:, None] * weight[None, :] + bias[None, :]
    y_tile = y_ptr + rows.to(tl.int64)[:, None] * C + columns[None, :]
    tl.store(y_tile, y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + rows, mean, mask=in_rows)
    tl.store(rstd_ptr + rows, rstd, mask=in_rows)


@triton.jit
def _backward_kernel(
    dy_ptr,  # [rows, c] contiguous
    x_ptr,  # as in _forward_kernel
    weight_ptr,  # [c]
    mean_ptr,  # [rows] float32
    rstd_ptr,  # [rows] float32
    added_ptr,  # strides of x, added to dx; read if HAS_ADDED
    dx_ptr,  # out: strides of x
    partial_ptr,  # out: [programs, 2, c] float32, sums for weight, bias
    num_rows,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    channel_stride,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_ADDED: tl.constexpr,
):
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, BLOCK_C)
    in_columns = columns < C
    weight = tl.load(weight_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    weight_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    bias_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    for first in range(program * BLOCK_ROWS, num_rows, num_programs * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        in_rows = rows < num_rows
        inside = in_rows[:, None] & in_columns[None, :]
        offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
        dy_offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
        x = tl.load(
            x_ptr + offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride,
            mask=inside,
            other=0.0,
        ).to(tl.float32)
        dy = tl.load(dy_ptr + dy_offsets, mask=inside, other=0.0).to(tl.float32)
        mean = tl.load(mean_ptr + rows, mask=in_rows, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=in_rows, other=0.0)
        normalized = tl.where(inside, (x - mean[:, None]) * rstd[:, None], 0.0)
        dx = input_gradient(dy, normalized, rstd, weight, C)
        dx_offsets = offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
        if HAS_ADDED:
            dx += tl.load(added_ptr + dx_offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + dx_offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        weight_sum += tl.sum(dy * normalized, axis=0)
        bias_sum += tl.sum(dy, axis=0)
    partial = partial_ptr + program.to(tl.int64) * 2 * C + columns
    tl.store(partial, weight_sum, mask=in_columns)
    tl.store(partial + C, bias_sum, mask=in_columns)


def gradient_rows(x: Tensor, added: Tensor | None) -> tuple[Rows, Tensor, Tensor | None]:
    """Return the rows of x, an empty tensor for its gradient, and added in the same layout.

    added: in the shape of x; None: nothing. The three have the same strides.
    """
    # rows.tensor is x, or a contiguous copy of x, in the shape of x.
    rows = Rows.of(x)
    dx = torch.empty_like(rows.tensor)
    if dx.stride() != rows.tensor.stride():
        # x has gaps or overlapping memory; its copy does not.
        rows, dx = Rows.of(x.contiguous()), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if added is not None and added.stride() != dx.stride():
        added = torch.empty_like(dx).copy_(added)
    return rows, dx, added


def _blocks(c: int) -> dict[str, int]:
    block_c = next_power_of_2(c)
    return {"C": c, "BLOCK_C": block_c, "BLOCK_ROWS": max(1, ELEMENTS_PER_PROGRAM // block_c)}


@fused_op
def layer_norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [..., c] contiguous in the dtype of x, and mean and rstd [rows] float32."""
    rows = Rows.of(x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    mean = torch.empty(rows.count, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    blocks = _blocks(x.shape[-1])
    grid = (divide_up(rows.count, blocks["BLOCK_ROWS"]),)
    layout = (rows.count, *rows.layout, rows.channel_stride)
    launch(
        _forward_kernel,
        grid,
        rows.tensor,
        weight,
        bias,
        y,
        mean,
        rstd,
        *layout,
        eps,
        **blocks,
        num_warps=4,
    )
    return y, mean, rstd


@fused_op
def layer_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, added: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the gradients.

    added: in the shape of x, added to dx; None: nothing.

    Returns:
        dx [..., c] in dtype and memory layout of x; partial sums [programs, 2, c] float32 for
        weight and bias.
    """
    rows, dx, added = gradient_rows(x, added)
    blocks = _blocks(x.shape[-1]) | {"HAS_ADDED": added is not None}
    programs = max(1, min(MAX_PARTIAL_SUMS, divide_up(rows.count, blocks["BLOCK_ROWS"])))
    partial = torch.empty(programs, 2, x.shape[-1], dtype=torch.float32, device=x.device)
    layout = (rows.count, *rows.layout, rows.channel_stride)
    launch(
        _backward_kernel,
        (programs,),
        dy.contiguous(),
        rows.tensor,
        weight,
        mean,
        rstd,
        dx.new_empty(0) if added is None else added,
        dx,
        partial,
        *layout,
        **blocks,
        num_warps=4,
    )
    return dx, partial


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y, mean, rstd = layer_norm_forward(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, mean, rstd = ctx.saved_tensors
        dx, partial = layer_norm_backward(dy, x, weight, mean, rstd, None)
        dweight, dbias = partial.sum(0).to(weight.dtype)
        return dx, dweight, dbias, None


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Compute kernels.reference.layer_norm with one launch in each pass.

    Under autocast the result keeps the dtype of x.
    """
    return _LayerNorm.apply(x, weight, bias, eps)
