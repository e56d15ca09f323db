"""Layer normalization of a residual stream, and the linear projection of its result.

A projection to a few channels, such as the bias of an attention, is computed from the normalized
rows in registers. With w the weight of the projection, dp its gradient, n the normalized rows and
dn their other gradient,

    d(n) = dn + dp w,   d(w) = dp^T n,

also in registers; the rest is the backward pass of the normalization (layer_norm.py). The channels
of the projection come first in memory, as in the bias of an attention.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    Rows,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
    row_offsets,
)
from openfold_opt.kernels.triton.layer_norm import (
    MAX_PARTIAL_SUMS,
    centered_rows,
    gradient_rows,
    input_gradient,
)
from openfold_opt.kernels.triton.partial_sums import sum_partials
from openfold_opt.kernels.triton.residual_norm import residual_norm
from openfold_opt.kernels.triton.wide_projection.wide_projection import (
    MAX_CHANNELS,
    projected_rows,
)

MAX_CHANNELS_OUT = 16
"""Largest number of output channels of the fused projection."""
MAX_CHANNELS_IN = 256
"""Largest number of input channels of the fused projection."""

ELEMENTS_PER_BLOCK = 4096
"""Elements of x in a block of rows."""


@triton.jit
def _forward_kernel(
    x_ptr,  # [size_0, size_1, size_2, c] with strides
    gamma_ptr,  # [c]
    beta_ptr,  # [c]
    weight_ptr,  # [c_out, c] contiguous
    y_ptr,  # out: [rows, c] contiguous, written if HAS_Y
    projected_ptr,  # out: [c_out, rows] contiguous
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
    C_OUT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_Y: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns, outputs = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_OUT)
    in_rows, in_columns, in_outputs = rows < num_rows, columns < C, outputs < C_OUT
    inside = in_rows[:, None] & in_columns[None, :]
    offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
    x_offsets = offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
    centered, mean, rstd = centered_rows(x_ptr + x_offsets, inside, eps, C)
    gamma = tl.load(gamma_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    y = centered * rstd[:, None] * gamma[None, :] + beta[None, :]
    y = y.to(y_ptr.dtype.element_ty)
    weight = tl.load(
        weight_ptr + outputs[None, :] * C + columns[:, None],
        mask=in_outputs[None, :] & in_columns[:, None],
        other=0.0,
    )
    projected = tl.dot(y.to(weight.dtype), weight, input_precision=PRECISION)
    projected_tile = projected_ptr + outputs[None, :].to(tl.int64) * num_rows + rows[:, None]
    tl.store(
        projected_tile,
        projected.to(projected_ptr.dtype.element_ty),
        mask=in_rows[:, None] & in_outputs[None, :],
    )
    if HAS_Y:
        tl.store(y_ptr + rows.to(tl.int64)[:, None] * C + columns[None, :], y, mask=inside)
    tl.store(mean_ptr + rows, mean, mask=in_rows)
    tl.store(rstd_ptr + rows, rstd, mask=in_rows)


@triton.jit
def _backward_kernel(
    dy_ptr,  # [rows, c] contiguous; read if HAS_DY
    dprojected_ptr,  # [c_out, rows] contiguous
    x_ptr,  # as in _forward_kernel
    gamma_ptr,  # [c]
    beta_ptr,  # [c]
    weight_ptr,  # [c_out, c] contiguous
    mean_ptr,  # [rows] float32
    rstd_ptr,  # [rows] float32
    added_ptr,  # strides of x, added to dx; read if HAS_ADDED
    dx_ptr,  # out: strides of x
    partial_ptr,  # out: [programs, 2, c] float32, sums for gamma, beta
    dweight_ptr,  # out: [programs, c_out, c] float32
    num_rows,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    channel_stride,
    C: tl.constexpr,
    C_OUT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_DY: tl.constexpr,
    HAS_ADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    columns, outputs = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_OUT)
    in_columns, in_outputs = columns < C, outputs < C_OUT
    gamma = tl.load(gamma_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    in_weight = in_outputs[:, None] & in_columns[None, :]
    weight_tile = outputs[:, None] * C + columns[None, :]
    weight = tl.load(weight_ptr + weight_tile, mask=in_weight, other=0.0)
    gamma_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    beta_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    dweight = tl.zeros([BLOCK_OUT, BLOCK_C], dtype=tl.float32)
    for first in range(program * BLOCK_ROWS, num_rows, num_programs * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        in_rows = rows < num_rows
        inside = in_rows[:, None] & in_columns[None, :]
        offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
        x_offsets = offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
        x = tl.load(x_ptr + x_offsets, mask=inside, other=0.0)
        mean = tl.load(mean_ptr + rows, mask=in_rows, other=0.0)
        rstd = tl.load(rstd_ptr + rows, mask=in_rows, other=0.0)
        normalized = tl.where(inside, (x.to(tl.float32) - mean[:, None]) * rstd[:, None], 0.0)
        dprojected = tl.load(
            dprojected_ptr + outputs[:, None].to(tl.int64) * num_rows + rows[None, :],
            mask=in_outputs[:, None] & in_rows[None, :],
            other=0.0,
        )
        # The padding of y is multiplied by zeros of dprojected.
        y = (normalized * gamma[None, :] + beta[None, :]).to(x.dtype).to(weight.dtype)
        dweight = tl.dot(dprojected, y, dweight, input_precision=PRECISION)
        dy = tl.dot(tl.trans(dprojected), weight, input_precision=PRECISION)
        if HAS_DY:
            dy_offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
            dy += tl.load(dy_ptr + dy_offsets, mask=inside, other=0.0).to(tl.float32)
        dx = input_gradient(dy, normalized, rstd, gamma, C)
        if HAS_ADDED:
            dx += tl.load(added_ptr + x_offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + x_offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        gamma_sum += tl.sum(dy * normalized, axis=0)
        beta_sum += tl.sum(dy, axis=0)
    partial = partial_ptr + program.to(tl.int64) * 2 * C + columns
    tl.store(partial, gamma_sum, mask=in_columns)
    tl.store(partial + C, beta_sum, mask=in_columns)
    dweight_part = dweight_ptr + program.to(tl.int64) * C_OUT * C
    tl.store(dweight_part + weight_tile, dweight, mask=in_weight)


def _constants(x: Tensor, weight: Tensor) -> Options:
    c_out, c = weight.shape
    block_c = max(MIN_DOT_SIZE, next_power_of_2(c))
    return {
        "C": c,
        "C_OUT": c_out,
        "BLOCK_C": block_c,
        "BLOCK_OUT": max(MIN_DOT_SIZE, next_power_of_2(c_out)),
        "BLOCK_ROWS": max(MIN_DOT_SIZE, ELEMENTS_PER_BLOCK // block_c),
        "PRECISION": dot_precision(weight.dtype),
        "num_warps": 4,
        "num_stages": 2,
    }


@fused_op
def projected_norm_forward(
    x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, eps: float, has_y: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalize and project.

    Returns:
        y [..., c] contiguous in the dtype of x (empty unless has_y); projected [c_out, rows] in the
        dtype of weight; mean and rstd [rows] float32.
    """
    rows, constants = Rows.of(x), _constants(x, weight)
    y = torch.empty(x.shape if has_y else 0, dtype=x.dtype, device=x.device)
    projected = torch.empty(len(weight), rows.count, dtype=weight.dtype, device=x.device)
    mean = torch.empty(rows.count, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    launch(
        _forward_kernel,
        (divide_up(rows.count, constants["BLOCK_ROWS"]),),
        *(rows.tensor, gamma, beta, weight, y, projected, mean, rstd),
        *(rows.count, *rows.layout, rows.channel_stride, eps),
        **constants,
        HAS_Y=has_y,
    )
    return y, projected, mean, rstd


@fused_op
def projected_norm_backward(
    dy: Tensor | None,
    dprojected: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    added: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients.

    dprojected: [c_out, rows] contiguous; added: in the shape of x, added to dx.

    Returns:
        dx [..., c] in dtype and memory layout of x; partial sums, float32: [programs, 2, c] for
        gamma and beta, [programs, c_out, c] for weight.
    """
    (rows, dx, added), constants = gradient_rows(x, added), _constants(x, weight)
    dy = None if dy is None else dy.contiguous()
    programs = max(1, min(MAX_PARTIAL_SUMS, divide_up(rows.count, constants["BLOCK_ROWS"])))
    partial = torch.empty(programs, 2, x.shape[-1], dtype=torch.float32, device=x.device)
    dweight = torch.empty(programs, *weight.shape, dtype=torch.float32, device=x.device)
    launch(
        _backward_kernel,
        (programs,),
        *(dprojected if dy is None else dy, dprojected, rows.tensor, gamma, beta, weight),
        *(mean, rstd, dx.new_empty(0) if added is None else added, dx, partial, dweight),
        *(rows.count, *rows.layout, rows.channel_stride),
        **constants,
        HAS_DY=dy is not None,
        HAS_ADDED=added is not None,
    )
    return dx, partial, dweight


class _ProjectedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, weight, eps, has_y):
        y, projected, mean, rstd = projected_norm_forward(x, gamma, beta, weight, eps, has_y)
        ctx.save_for_backward(x, gamma, beta, weight, mean, rstd)
        ctx.set_materialize_grads(False)
        return x, y if has_y else None, projected

    @staticmethod
    def backward(ctx, dresidual, dy, dprojected):
        x, gamma, beta, weight, mean, rstd = ctx.saved_tensors
        if dprojected is None:
            dprojected = weight.new_zeros(len(weight), len(mean))
        dx, partial, dweight = projected_norm_backward(
            dy, dprojected.contiguous(), x, gamma, beta, weight, mean, rstd, dresidual
        )
        dgamma, dbeta = partial.sum(0).to(gamma.dtype)
        return dx, dgamma, dbeta, sum_partials(dweight, weight.dtype), None, None


def is_fused_projection(projection: LinearWeights) -> bool:
    """Return whether a projection is computed from the normalized rows in registers."""
    c_out, c = projection.weight.shape
    return c_out <= MAX_CHANNELS_OUT and c <= MAX_CHANNELS_IN and projection.bias is None


def projected_norm(
    x: Tensor, norm: NormWeights, projection: LinearWeights, *, only_projection: bool = False
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute kernels.reference.projected_norm; its docstring has the shapes.

    A projection to a few channels without bias takes one launch in each pass, and the gradients of
    the parameters two more.
    """
    weight, bias = projection
    if not is_fused_projection(projection):
        if only_projection and weight.shape[1] <= MAX_CHANNELS:
            x, projected = projected_rows(x, norm, projection)
            return x, None, projected
        x, normalized = residual_norm(x, norm)
        projected = F.linear(normalized.to(weight.dtype), weight, bias)
        return x, None if only_projection else normalized, projected
    residual, normalized, projected = _ProjectedNorm.apply(
        x, norm.weight, norm.bias, weight, norm.eps, not only_projection
    )
    return residual, normalized, projected.view(-1, *x.shape[:-1]).movedim(0, -1)
