"""Layer normalization and a wide linear projection of its result.

With n the normalized rows before scale and bias, y = gamma * n + beta and p = y W^T + b, a gradient
dp gives dy = dp W, and the backward pass of the normalization (layer_norm.py) gives dx. A program
computes dy for a block of rows, keeps it in the memory of dx, which is still in the cache, and
replaces it a few rows at a time: all would need too many registers. It also writes y for dW = dp^T
y, a matrix product of cuBLAS, so that the forward pass does not save y. The sums of the last
channels of dp, those with a bias, are computed from the tiles of the product.

forward_kernel computes the projection alone; the normalized rows are in registers. Where more than
the projection is computed from them, other kernels replace it (triangle_gate.py).

The normalized rows may have a second projection, to a few channels, as in projected_norm.py. Its
gradient is added to dy, and the gradient of its weight is computed here, too.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.launching import row_offsets
from openfold_opt.kernels.triton.layer_norm import centered_rows, input_gradient


@triton.jit
def forward_kernel(
    x_ptr,  # [size_0, size_1, size_2, c] with strides
    gamma_ptr,  # [c]
    beta_ptr,  # [c]
    weight_ptr,  # [width, c] contiguous
    bias_ptr,  # [width]; read if HAS_BIAS
    projected_ptr,  # out: [rows, width] contiguous
    num_rows,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    channel_stride,
    eps,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Normalize a block of rows and project it."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_C)
    in_rows, in_columns = rows < num_rows, columns < C
    inside = in_rows[:, None] & in_columns[None, :]
    offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
    x_tile = x_ptr + offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
    centered, mean, rstd = centered_rows(x_tile, inside, eps, C)
    gamma = tl.load(gamma_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    y = centered * rstd[:, None] * gamma[None, :] + beta[None, :]
    y = y.to(x_ptr.dtype.element_ty).to(weight_ptr.dtype.element_ty)
    for first in range(0, WIDTH, BLOCK_WIDTH):
        outputs = first + tl.arange(0, BLOCK_WIDTH)
        weight = tl.load(
            weight_ptr + outputs[:, None] * C + columns[None, :],
            mask=(outputs < WIDTH)[:, None] & in_columns[None, :],
            other=0.0,
        )
        projected = tl.dot(y, tl.trans(weight), input_precision=PRECISION)
        if HAS_BIAS:
            bias = tl.load(bias_ptr + outputs, mask=outputs < WIDTH, other=0.0)
            projected += bias.to(tl.float32)[None, :]
        tl.store(
            projected_ptr + rows.to(tl.int64)[:, None] * WIDTH + outputs[None, :],
            projected.to(projected_ptr.dtype.element_ty),
            mask=in_rows[:, None] & (outputs < WIDTH)[None, :],
        )


@triton.jit
def _add_products(
    dy,
    dprojected_ptr,
    weight_ptr,
    sums,  # out: sums of the channels if HAS_SUMS
    rows,
    num_rows,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    HAS_SUMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return dy plus the products of the channels from FIRST up to LAST."""
    columns = tl.arange(0, BLOCK_C)
    for first in range(FIRST, LAST, BLOCK_WIDTH):
        inner = first + tl.arange(0, BLOCK_WIDTH)
        dprojected = tl.load(
            dprojected_ptr + rows.to(tl.int64)[:, None] * WIDTH + inner[None, :],
            mask=(rows < num_rows)[:, None] & (inner < LAST)[None, :],
            other=0.0,
        )
        weight = tl.load(
            weight_ptr + inner[:, None] * C + columns[None, :],
            mask=(inner < LAST)[:, None] & (columns < C)[None, :],
            other=0.0,
        )
        dy = tl.dot(dprojected, weight, dy, input_precision=PRECISION)
        if HAS_SUMS:
            total = tl.sum(dprojected.to(tl.float32), axis=0)
            tl.store(sums + inner - FIRST, total, mask=inner < LAST)
    return dy


@triton.jit
def _load_narrow(dnarrow_ptr, outputs, rows, num_rows, C_OUT: tl.constexpr):
    """Load the gradient of the narrow projection; outputs and rows have two dims."""
    return tl.load(
        dnarrow_ptr + outputs.to(tl.int64) * num_rows + rows,
        mask=(outputs < C_OUT) & (rows < num_rows),
        other=0.0,
    )


@triton.jit
def replace_by_input_gradient(
    dx_ptr,  # dy before, dx after
    y_ptr,  # out
    x_ptr,
    added_ptr,
    gamma_ptr,
    beta_ptr,
    first_row,
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
    NORM_ROWS: tl.constexpr,
    HAS_ADDED: tl.constexpr,
):
    """Write y, and replace dy by dx, for a block of rows. Return sums [c] for gamma and beta."""
    columns = tl.arange(0, BLOCK_C)
    in_columns = columns < C
    gamma = tl.load(gamma_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    beta = tl.load(beta_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    gamma_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    beta_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    for part in tl.range(0, BLOCK_ROWS, NORM_ROWS, num_stages=1):
        rows = first_row + part + tl.arange(0, NORM_ROWS)
        inside = (rows < num_rows)[:, None] & in_columns[None, :]
        offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
        x_offsets = offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
        dy = tl.load(dx_ptr + x_offsets, mask=inside, other=0.0).to(tl.float32)
        centered, mean, rstd = centered_rows(x_ptr + x_offsets, inside, eps, C)
        normalized = centered * rstd[:, None]
        # Rounded as in the forward pass.
        y = (normalized * gamma[None, :] + beta[None, :]).to(x_ptr.dtype.element_ty)
        y_tile = y_ptr + rows.to(tl.int64)[:, None] * C + columns[None, :]
        tl.store(y_tile, y.to(y_ptr.dtype.element_ty), mask=inside)
        dx = input_gradient(dy, normalized, rstd, gamma, C)
        if HAS_ADDED:
            dx += tl.load(added_ptr + x_offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + x_offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        gamma_sum += tl.sum(dy * normalized, axis=0)
        beta_sum += tl.sum(dy, axis=0)
    return gamma_sum, beta_sum


@triton.jit
def backward_kernel(
    dprojected_ptr,  # [rows, width] contiguous
    weight_ptr,  # [width, c] contiguous, in the dtype of dprojected
    dnarrow_ptr,  # [c_out, rows] contiguous, likewise; read if C_OUT > 0
    narrow_weight_ptr,  # [c_out, c] contiguous, likewise; read if C_OUT > 0
    x_ptr,  # [size_0, size_1, size_2, c] with strides
    gamma_ptr,  # [c]
    beta_ptr,  # [c]
    added_ptr,  # strides of x, added to dx; read if HAS_ADDED
    dx_ptr,  # out: strides of x; dy before
    y_ptr,  # out: [rows, c] contiguous, in the dtype of weight
    partial_ptr,  # out: [programs, 2 * c + width - first_sum + c_out * c] float32: sums for gamma,
    # beta, bias and narrow weight
    num_rows,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    channel_stride,
    eps,
    WIDTH: tl.constexpr,
    FIRST_SUM: tl.constexpr,  # channels from here on are summed for the bias
    C: tl.constexpr,
    C_OUT: tl.constexpr,  # of the narrow projection; 0 without it
    BLOCK_C: tl.constexpr,
    BLOCK_OUT: tl.constexpr,  # rows of the product that is the gradient of the narrow weight
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    NORM_ROWS: tl.constexpr,  # rows that are normalized at a time; divides BLOCK_ROWS
    HAS_ADDED: tl.constexpr,
    MIN_DOT_SIZE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute dx and y for a block of rows, and its part of the sums."""
    first_row = tl.program_id(0) * BLOCK_ROWS
    rows, columns = first_row + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_C)
    in_columns = columns < C
    inside = (rows < num_rows)[:, None] & in_columns[None, :]
    partial = partial_ptr + tl.program_id(0).to(tl.int64) * ((2 + C_OUT) * C + WIDTH - FIRST_SUM)
    sums = partial + 2 * C
    dy = tl.zeros([BLOCK_ROWS, BLOCK_C], dtype=tl.float32)
    product = (dprojected_ptr, weight_ptr, sums, rows, num_rows)
    dy = _add_products(dy, *product, 0, FIRST_SUM, WIDTH, C, BLOCK_C, BLOCK_WIDTH, False, PRECISION)
    dy = _add_products(
        dy, *product, FIRST_SUM, WIDTH, WIDTH, C, BLOCK_C, BLOCK_WIDTH, True, PRECISION
    )
    if C_OUT > 0:
        outputs = tl.arange(0, MIN_DOT_SIZE)
        dnarrow = _load_narrow(dnarrow_ptr, outputs[None, :], rows[:, None], num_rows, C_OUT)
        narrow_weight = tl.load(
            narrow_weight_ptr + outputs[:, None] * C + columns[None, :],
            mask=(outputs < C_OUT)[:, None] & in_columns[None, :],
            other=0.0,
        )
        dy = tl.dot(dnarrow, narrow_weight, dy, input_precision=PRECISION)
    offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
    dx_tile = dx_ptr + offsets[:, None] + columns[None, :].to(tl.int64) * channel_stride
    tl.store(dx_tile, dy.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.debug_barrier()
    layout = (num_rows, size_1, size_2, stride_0, stride_1, stride_2, channel_stride)
    gamma_sum, beta_sum = replace_by_input_gradient(
        *(dx_ptr, y_ptr, x_ptr, added_ptr, gamma_ptr, beta_ptr, first_row),
        *layout,
        eps,
        *(C, BLOCK_C, BLOCK_ROWS, NORM_ROWS, HAS_ADDED),
    )
    tl.store(partial + columns, gamma_sum, mask=in_columns)
    tl.store(partial + C + columns, beta_sum, mask=in_columns)
    if C_OUT > 0:
        # y is read as other threads wrote it.
        tl.debug_barrier()
        outputs = tl.arange(0, BLOCK_OUT)
        dnarrow = _load_narrow(dnarrow_ptr, outputs[:, None], rows[None, :], num_rows, C_OUT)
        y_tile = y_ptr + rows.to(tl.int64)[:, None] * C + columns[None, :]
        y = tl.load(y_tile, mask=inside, other=0.0)
        dnarrow_weight = tl.dot(dnarrow, y, input_precision=PRECISION)
        tl.store(
            sums + WIDTH - FIRST_SUM + outputs[:, None] * C + columns[None, :],
            dnarrow_weight,
            mask=(outputs < C_OUT)[:, None] & in_columns[None, :],
        )


@triton.jit
def sum_kernel(
    partial_ptr,  # [parts, num_sums] contiguous, as in backward_kernel
    norm_ptr,  # out: [num_norm], gradients of gamma and beta
    bias_ptr,  # out: [first_sum + num_bias], zeros and the gradient of the bias
    narrow_ptr,  # out: the rest, the gradient of the narrow weight
    num_parts,
    num_sums,
    num_norm,
    num_bias,
    first_sum,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_SUMS: tl.constexpr,
):
    """Add the parts of some sums in a fixed order."""
    sums = tl.program_id(0) * BLOCK_SUMS + tl.arange(0, BLOCK_SUMS)
    total = tl.zeros([BLOCK_PARTS, BLOCK_SUMS], dtype=tl.float32)
    for first in range(0, num_parts, BLOCK_PARTS):
        parts = first + tl.arange(0, BLOCK_PARTS)
        offsets = parts.to(tl.int64)[:, None] * num_sums + sums[None, :]
        inside = (parts < num_parts)[:, None] & (sums < num_sums)[None, :]
        total += tl.load(partial_ptr + offsets, mask=inside, other=0.0)
    result = tl.sum(total, axis=0)
    in_bias = sums - num_norm
    in_narrow = in_bias - num_bias
    tl.store(norm_ptr + sums, result.to(norm_ptr.dtype.element_ty), mask=in_bias < 0)
    bias = result.to(bias_ptr.dtype.element_ty)
    tl.store(bias_ptr + first_sum + in_bias, bias, mask=(in_bias >= 0) & (in_narrow < 0))
    narrow = result.to(narrow_ptr.dtype.element_ty)
    tl.store(narrow_ptr + in_narrow, narrow, mask=(in_narrow >= 0) & (sums < num_sums))
    # The sums after the last one are zeros, those of the channels without bias.
    zeros = sums - num_sums
    tl.store(bias_ptr + zeros, bias, mask=(zeros >= 0) & (zeros < first_sum))
