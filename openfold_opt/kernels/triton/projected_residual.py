"""residual + (x W^T + b) * sigmoid(gate) * mask: a projection whose result is not written.

The gate, the dropout mask and the residual are applied to a tile of the product in registers. Each
tensor of the residual stream has its own strides, so attention along columns needs no transposed
copy. With a gate, the backward pass needs the product, which the forward pass then writes, too.

The kernel also has x as the normalization of another tensor with channels before rows, which is
computed in registers and not written (normalized_residual.py).

The backward pass takes one launch without a gate (projected_residual_gradient.py). With a gate, or
with more output channels than fit its registers, it is dropout_residual_backward and two products
of cuBLAS.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton.dropout_residual import (
    dense,
    dropout_residual_backward,
    leading_strides,
    three_leading_dims,
)
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    divide_up,
    dot_precision,
    filling_block,
    fused_op,
    launch,
    next_power_of_2,
    row_offsets,
)
from openfold_opt.kernels.triton.layer_norm import centered_rows
from openfold_opt.kernels.triton.partial_sums import sum_partials
from openfold_opt.kernels.triton.projected_residual_gradient import (
    MAX_CHANNELS_OUT,
    projected_residual_gradient,
    projection_gradients,
)

BLOCK_ROWS = 64
"""Rows of a tile: the fewest of an instruction of a warpgroup."""


@triton.jit
def _forward_kernel(
    x_ptr,  # [rows, c_in] contiguous; rows are numbered over [size_0, size_1, size_2].
    # If HAS_NORM: [size_0, c_in, size_1, size_2] contiguous, before the normalization
    gamma_ptr,  # [c_in], weight and bias of the normalization; read if HAS_NORM
    beta_ptr,
    weight_ptr,  # [c_out, c_in] contiguous
    bias_ptr,  # [c_out]
    residual_ptr,  # [size_0, size_1, size_2, c_out] with strides for the first three dims
    gate_ptr,  # as residual
    mask_ptr,  # as residual, with a stride for the channels
    out_ptr,  # out: strides of residual
    update_ptr,  # out: [rows, c_out] contiguous, x W^T + b; written if HAS_UPDATE
    num_rows,
    size_1,
    size_2,
    residual_stride_0,
    residual_stride_1,
    residual_stride_2,
    gate_stride_0,
    gate_stride_1,
    gate_stride_2,
    mask_stride_0,
    mask_stride_1,
    mask_stride_2,
    mask_stride_c,
    eps,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    in_rows, in_columns = rows < num_rows, columns < C_OUT
    inside = in_rows[:, None] & in_columns[None, :]
    x_rows = rows.to(tl.int64)[:, None] * C_IN
    if HAS_NORM:
        channel_stride = size_1 * size_2
        batch = (rows // channel_stride).to(tl.int64)
        x_rows = (batch * C_IN * channel_stride + rows % channel_stride)[:, None]
        channels = tl.arange(0, BLOCK_C)[None, :]
        _, mean, rstd = centered_rows(
            x_ptr + x_rows + channels.to(tl.int64) * channel_stride,
            in_rows[:, None] & (channels < C_IN),
            eps,
            C_IN,
        )
    update = tl.zeros([BLOCK_ROWS, BLOCK_OUT], dtype=tl.float32)
    for first in range(0, C_IN, BLOCK_IN):
        inner = first + tl.arange(0, BLOCK_IN)
        x_columns = inner[None, :]
        if HAS_NORM:
            x_columns = x_columns.to(tl.int64) * channel_stride
        x = tl.load(
            x_ptr + x_rows + x_columns,
            mask=in_rows[:, None] & (inner < C_IN)[None, :],
            other=0.0,
        )
        if HAS_NORM:
            gamma = tl.load(gamma_ptr + inner, mask=inner < C_IN, other=0.0).to(tl.float32)
            beta = tl.load(beta_ptr + inner, mask=inner < C_IN, other=0.0).to(tl.float32)
            normalized = (x.to(tl.float32) - mean[:, None]) * rstd[:, None]
            x = (normalized * gamma[None, :] + beta[None, :]).to(x.dtype)
        weight = tl.load(
            weight_ptr + columns[None, :] * C_IN + inner[:, None],
            mask=in_columns[None, :] & (inner < C_IN)[:, None],
            other=0.0,
        )
        update = tl.dot(x.to(weight.dtype), weight, update, input_precision=PRECISION)
    bias = tl.load(bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    update += bias[None, :]
    if HAS_UPDATE:
        update_tile = update_ptr + rows.to(tl.int64)[:, None] * C_OUT + columns[None, :]
        tl.store(update_tile, update.to(update_ptr.dtype.element_ty), mask=inside)
    if HAS_GATE:
        gate_rows = row_offsets(rows, size_1, size_2, gate_stride_0, gate_stride_1, gate_stride_2)
        gate = tl.load(gate_ptr + gate_rows[:, None] + columns[None, :], mask=inside, other=0.0)
        update *= tl.sigmoid(gate.to(tl.float32))
    if HAS_MASK:
        mask_rows = row_offsets(rows, size_1, size_2, mask_stride_0, mask_stride_1, mask_stride_2)
        update *= tl.load(
            mask_ptr + mask_rows[:, None] + columns[None, :] * mask_stride_c, mask=inside, other=0.0
        ).to(tl.float32)
    residual_rows = row_offsets(
        rows, size_1, size_2, residual_stride_0, residual_stride_1, residual_stride_2
    )
    offsets = residual_rows[:, None] + columns[None, :]
    residual = tl.load(residual_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + offsets, (residual + update).to(out_ptr.dtype.element_ty), mask=inside)


def _constants(x: Tensor, weight: Tensor, row_blocks: int) -> Options:
    c_out, c_in = weight.shape
    # Float32 needs twice the bytes of bfloat16, in registers and in shared memory.
    limits = (64,) if x.dtype == torch.float32 else (64, 128)
    blocks = [max(MIN_DOT_SIZE, min(limit, next_power_of_2(c_out))) for limit in limits]
    return {
        "C_IN": c_in,
        "C_OUT": c_out,
        "BLOCK_ROWS": BLOCK_ROWS,
        "BLOCK_OUT": filling_block(blocks, lambda block: row_blocks * divide_up(c_out, block)),
        "BLOCK_IN": max(MIN_DOT_SIZE, min(32, next_power_of_2(c_in))),
        "BLOCK_C": next_power_of_2(c_in),
        "PRECISION": dot_precision(x.dtype),
        "num_warps": 4,
        "num_stages": 2,
    }


@fused_op
def projected_residual_forward(
    residual: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    gate: Tensor | None,
    has_update: bool,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Compute the sum.

    residual, mask, gate: [size_0, size_1, size_2, c_out]; x: [size_0, size_1, size_2, c_in]
    contiguous, in the dtype of weight; gamma, beta: None, or the normalization of x, which then is
    [size_0, c_in, size_1, size_2] contiguous.

    Returns:
        out in dtype and memory layout of residual; x W^T + b (empty unless has_update).
    """
    out = torch.empty_like(residual)
    if out.stride() != residual.stride():
        # residual has gaps, for example as part of a larger tensor; out does not.
        residual = residual.contiguous()
        out = torch.empty_like(residual)
    update = torch.empty(residual.shape if has_update else 0, dtype=x.dtype, device=x.device)
    num_rows = residual.shape[0] * residual.shape[1] * residual.shape[2]
    row_blocks = divide_up(num_rows, BLOCK_ROWS)
    constants = _constants(x, weight, row_blocks)
    mask_strides = (0, 0, 0, 0) if mask is None else mask.stride()
    # Fills the arguments of what is missing, which the kernel does not read.
    nothing = weight.new_empty(0)
    launch(
        _forward_kernel,
        (row_blocks, divide_up(weight.shape[0], constants["BLOCK_OUT"])),
        x,
        *(nothing if each is None else each for each in (gamma, beta)),
        *(weight, bias, residual),
        *(nothing if each is None else each for each in (gate, mask)),
        *(out, update),
        *(
            num_rows,
            *residual.shape[1:3],
            *leading_strides(residual),
            *leading_strides(gate),
            *mask_strides,
            eps,
        ),
        **constants,
        HAS_NORM=gamma is not None,
        HAS_GATE=gate is not None,
        HAS_MASK=mask is not None,
        HAS_UPDATE=has_update,
    )
    return out, update


class _ProjectedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, residual, x, weight, bias, mask, gate, needs_gradient):
        has_update = needs_gradient and gate is not None
        out, update = projected_residual_forward(residual, x, weight, bias, mask, gate, has_update)
        ctx.save_for_backward(x, weight, update if has_update else None, mask, gate)
        ctx.bias_dtype = bias.dtype
        return out

    @staticmethod
    def backward(ctx, dout):
        x, weight, update, mask, gate = ctx.saved_tensors
        if gate is None and len(weight) <= MAX_CHANNELS_OUT:
            dx, partial = projected_residual_gradient(dense(dout), x, weight, mask)
            dweight, dbias = projection_gradients(partial, weight, ctx.bias_dtype)
            return dout, dx, dweight, dbias, None, None, None
        if update is None:
            # Only the layout of the update is needed: that of x.
            shape = (*x.shape[:-1], weight.shape[0])
            update = torch.empty(shape, dtype=x.dtype, device=x.device)
        dupdate, dgate, partial = dropout_residual_backward(dense(dout), update, mask, gate, True)
        rows = dupdate.flatten(0, -2)
        dx, dweight = (rows @ weight).view_as(x), rows.t() @ x.flatten(0, -2)
        dbias = sum_partials(partial, ctx.bias_dtype)
        return dout, dx, dweight, dbias, None, None if gate is None else dgate, None


def projected_residual(
    residual: Tensor,
    x: Tensor,
    projection: LinearWeights,
    mask: Tensor | None,
    gate: Tensor | None = None,
) -> Tensor:
    """Compute kernels.reference.dropout_residual of the projection of x.

    residual, mask, gate: as for dropout_residual; x: [batch, ..., c_in].
    """
    shape = residual.shape
    mask = None if mask is None else mask.expand(shape)
    residual, mask, gate = (three_leading_dims(each) for each in (residual, mask, gate))
    x = three_leading_dims(x.to(projection.weight.dtype)).contiguous()
    needs_gradient = torch.is_grad_enabled()
    return _ProjectedResidual.apply(residual, x, *projection, mask, gate, needs_gradient).view(
        shape
    )
