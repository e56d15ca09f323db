"""residual + (n W^T + b) * sigmoid(gate) * mask with n the normalization of x, in one launch.

x has channels before rows, as the product of a triangle multiplication. The forward pass writes
neither n nor the projection. The backward pass computes both again from x, tile by tile, and all
gradients from them, in one launch and one more for its sums. With u = n W^T + b, s = sigmoid(gate)
and d = dout * mask,

    dgate = d * u * s * (1 - s),   du = d * s,   dW = du^T n,   db = sum over rows of du,

and dn = du W is the gradient of the normalization (layer_norm.py).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.dropout_residual import (
    dense,
    leading_strides,
    three_leading_dims,
)
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
from openfold_opt.kernels.triton.layer_norm import centered_rows, input_gradient, layer_norm
from openfold_opt.kernels.triton.partial_sums import sum_partials
from openfold_opt.kernels.triton.projected_residual import (
    projected_residual,
    projected_residual_forward,
)
from openfold_opt.kernels.triton.projected_residual_gradient import (
    PROGRAMS,
    load_masked_gradient,
    projection_gradients,
)

MAX_CHANNELS = 128
"""Largest number of channels of the backward pass, which keeps dW in registers."""


@triton.jit
def gradient_kernel(
    dout_ptr,  # [size_0, size_1, size_2, c_out] with strides for the first three dims
    gate_ptr,  # as dout
    mask_ptr,  # as dout, with a stride for the channels; read if HAS_MASK
    x_ptr,  # [size_0, c_in, size_1, size_2] contiguous
    gamma_ptr,  # [c_in], weight and bias of the normalization
    beta_ptr,
    weight_ptr,  # [c_out, c_in] contiguous
    bias_ptr,  # [c_out]
    dgate_ptr,  # out: [rows, c_out] contiguous; rows are numbered over [size_0, size_1, size_2]
    dx_ptr,  # out: as x
    partial_ptr,  # out: [programs, c_out * c_in + c_out] float32, sums for weight and bias
    norm_partial_ptr,  # out: [programs, 2, c_in] float32, sums for gamma and beta
    num_rows,
    size_1,
    size_2,
    dout_stride_0,
    dout_stride_1,
    dout_stride_2,
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
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute all gradients for some tiles of rows, and sums over them."""
    inner, columns = tl.arange(0, BLOCK_IN), tl.arange(0, BLOCK_OUT)
    in_inner, in_columns = inner < C_IN, columns < C_OUT
    gamma = tl.load(gamma_ptr + inner, mask=in_inner, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + inner, mask=in_inner, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    in_weight = in_columns[:, None] & in_inner[None, :]
    weight_tile = columns[:, None] * C_IN + inner[None, :]
    weight = tl.load(weight_ptr + weight_tile, mask=in_weight, other=0.0)
    dweight = tl.zeros([BLOCK_IN, BLOCK_OUT], dtype=tl.float32)
    dbias = tl.zeros([BLOCK_OUT], dtype=tl.float32)
    dgamma = tl.zeros([BLOCK_IN], dtype=tl.float32)
    dbeta = tl.zeros([BLOCK_IN], dtype=tl.float32)
    channel_stride = size_1 * size_2
    for first in range(tl.program_id(0) * BLOCK_ROWS, num_rows, tl.num_programs(0) * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        in_rows = rows < num_rows
        batch = (rows // channel_stride).to(tl.int64)
        x_rows = batch * C_IN * channel_stride + rows % channel_stride
        x_tile = x_rows[:, None] + inner[None, :].to(tl.int64) * channel_stride
        in_x = in_rows[:, None] & in_inner[None, :]
        centered, _, rstd = centered_rows(x_ptr + x_tile, in_x, eps, C_IN)
        normalized = centered * rstd[:, None]
        projected = (normalized * gamma[None, :] + beta[None, :]).to(weight.dtype)
        update = tl.trans(tl.dot(weight, tl.trans(projected), input_precision=PRECISION))
        update += bias[None, :]
        inside = in_rows[:, None] & in_columns[None, :]
        dupdate = load_masked_gradient(
            *(dout_ptr, mask_ptr, rows, columns, inside, size_1, size_2),
            *(dout_stride_0, dout_stride_1, dout_stride_2),
            *(mask_stride_0, mask_stride_1, mask_stride_2, mask_stride_c, HAS_MASK),
        )
        gate_rows = row_offsets(rows, size_1, size_2, gate_stride_0, gate_stride_1, gate_stride_2)
        gate = tl.load(gate_ptr + gate_rows[:, None] + columns[None, :], mask=inside, other=0.0)
        sigmoid_gate = tl.sigmoid(gate.to(tl.float32))
        dgate = dupdate * update * sigmoid_gate * (1.0 - sigmoid_gate)
        dgate_tile = dgate_ptr + rows.to(tl.int64)[:, None] * C_OUT + columns[None, :]
        tl.store(dgate_tile, dgate.to(dgate_ptr.dtype.element_ty), mask=inside)
        dupdate *= sigmoid_gate
        dbias += tl.sum(dupdate, axis=0)
        dupdate = dupdate.to(weight.dtype)
        dweight = tl.dot(tl.trans(projected), dupdate, dweight, input_precision=PRECISION)
        dprojected = tl.trans(
            tl.dot(tl.trans(weight), tl.trans(dupdate), input_precision=PRECISION)
        )
        dx = input_gradient(dprojected, normalized, rstd, gamma, C_IN)
        tl.store(dx_ptr + x_tile, dx.to(dx_ptr.dtype.element_ty), mask=in_x)
        dgamma += tl.sum(dprojected * normalized, axis=0)
        dbeta += tl.sum(dprojected, axis=0)
    partial = partial_ptr + tl.program_id(0).to(tl.int64) * (C_OUT * C_IN + C_OUT)
    tl.store(partial + weight_tile, tl.trans(dweight), mask=in_weight)
    tl.store(partial + C_OUT * C_IN + columns, dbias, mask=in_columns)
    norm_partial = norm_partial_ptr + tl.program_id(0) * 2 * C_IN + inner
    tl.store(norm_partial, dgamma, mask=in_inner)
    tl.store(norm_partial + C_IN, dbeta, mask=in_inner)


def _constants(weight: Tensor) -> Options:
    c_out, c_in = weight.shape
    is_float32 = weight.dtype == torch.float32
    return {
        "C_IN": c_in,
        "C_OUT": c_out,
        "BLOCK_IN": max(MIN_DOT_SIZE, next_power_of_2(c_in)),
        "BLOCK_OUT": max(MIN_DOT_SIZE, next_power_of_2(c_out)),
        # Float32 needs twice the bytes of bfloat16.
        "BLOCK_ROWS": 16 if is_float32 else 32,
        "PRECISION": dot_precision(weight.dtype),
        "num_warps": 8 if max(c_in, c_out) > 64 else 4,
        "num_stages": 2 if is_float32 else 3,
    }


@fused_op
def normalized_residual_gradient(
    dout: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    gate: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients.

    dout, mask, gate: [size_0, size_1, size_2, c_out]; x: [size_0, c_in, size_1, size_2] contiguous,
    in the dtype of weight.

    Returns:
        dx as x; dgate [size_0, size_1, size_2, c_out]; partial sums, float32: [programs, c_out *
        c_in + c_out] for weight and bias, [programs, 2, c_in] for gamma and beta.
    """
    c_out, c_in = weight.shape
    num_rows = dout.shape[0] * dout.shape[1] * dout.shape[2]
    constants = _constants(weight)
    programs = max(1, min(PROGRAMS, divide_up(num_rows, constants["BLOCK_ROWS"])))
    dx = torch.empty_like(x)
    dgate = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    partial = torch.empty(programs, c_out * c_in + c_out, dtype=torch.float32, device=x.device)
    norm_partial = torch.empty(programs, 2, c_in, dtype=torch.float32, device=x.device)
    launch(
        gradient_kernel,
        (programs,),
        *(dout, gate, weight.new_empty(0) if mask is None else mask),
        *(x, gamma, beta, weight, bias, dgate, dx, partial, norm_partial),
        *(num_rows, *dout.shape[1:3], *leading_strides(dout), *leading_strides(gate)),
        *((0, 0, 0, 0) if mask is None else mask.stride()),
        eps,
        **constants,
        HAS_MASK=mask is not None,
    )
    return dx, dgate, partial, norm_partial


class _NormalizedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, residual, x, gamma, beta, weight, bias, mask, gate, eps):
        ctx.save_for_backward(x, gamma, beta, weight, bias, mask, gate)
        ctx.eps = eps
        return projected_residual_forward(
            residual, x, weight, bias, mask, gate, False, gamma, beta, eps
        )[0]

    @staticmethod
    def backward(ctx, dout):
        x, gamma, beta, weight, bias, mask, gate = ctx.saved_tensors
        dx, dgate, partial, norm_partial = normalized_residual_gradient(
            dense(dout), x, gamma, beta, weight, bias, mask, gate, ctx.eps
        )
        dweight, dbias = projection_gradients(partial, weight, bias.dtype)
        dgamma, dbeta = sum_partials(norm_partial, gamma.dtype)
        return dout, dx, dgamma, dbeta, dweight, dbias, None, dgate, None


def normalized_residual(
    residual: Tensor,
    x: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
    masks: tuple[Tensor | None, Tensor],
) -> Tensor:
    """Compute kernels.reference.dropout_residual of the projection of the normalization of x.

    More than MAX_CHANNELS channels take one launch for each part if gradients are needed.

    residual: [batch, size_1, size_2, c_out]; x: [batch, c_in, size_1, size_2] contiguous; masks:
    dropout mask and gate, as for dropout_residual.
    """
    mask, gate = masks
    if torch.is_grad_enabled() and max(projection.weight.shape) > MAX_CHANNELS:
        normalized = layer_norm(x.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
        return projected_residual(residual, normalized, projection, mask, gate)
    mask = None if mask is None else mask.expand(residual.shape)
    residual, mask, gate = (three_leading_dims(each) for each in (residual, mask, gate))
    gamma, beta, eps = norm
    return _NormalizedResidual.apply(residual, x, gamma, beta, *projection, mask, gate, eps)
