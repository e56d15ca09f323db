"""Normalization, two linear layers and residual in one pass.

The hidden layer, several times as wide as the input, is never in memory: a program keeps one chunk
of it in registers at a time.

With n the normalized x, u = weight * n + bias, h = ReLU(u W1^T + b1) and y = x + h W2^T + b2, a
gradient dy gives dh = (dy W2) where h > 0, du = dh W1, dW1 = dh^T u, dW2 = dy^T h. Both backward
kernels recompute h: one for blocks of rows (du, then dx through the normalization), the other for
chunks of the hidden layer (dW1, dW2), with the rows split among programs.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.layer_norm import input_gradient


@triton.jit
def normalized_rows(x_ptr, rows, columns, inside, norm_weight, norm_bias, eps, C: tl.constexpr):
    """Return normalized rows without and with weight and bias, and 1 / standard deviation."""
    x = tl.load(
        x_ptr + rows.to(tl.int64)[:, None] * C + columns[None, :], mask=inside, other=0.0
    ).to(tl.float32)
    mean = tl.sum(x, axis=1) / C
    centered = tl.where(inside, x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centered * centered, axis=1) / C + eps)
    normalized = centered * rstd[:, None]
    return (
        normalized,
        tl.where(inside, normalized * norm_weight[None, :] + norm_bias[None, :], 0.0),
        rstd,
    )


@triton.jit
def hidden_layer(
    u,
    weight_1_ptr,
    bias_1_ptr,
    hidden,
    columns,
    num_hidden,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a chunk of W1 [hidden, c], and u W1^T + b1 [rows, hidden] float32."""
    inside = (hidden < num_hidden)[:, None] & (columns < C)[None, :]
    weight_1 = tl.load(
        weight_1_ptr + hidden[:, None] * C + columns[None, :], mask=inside, other=0.0
    )
    bias_1 = tl.load(bias_1_ptr + hidden, mask=hidden < num_hidden, other=0.0).to(tl.float32)
    return weight_1, tl.dot(u, tl.trans(weight_1), input_precision=PRECISION) + bias_1[None, :]


@triton.jit
def forward_kernel(
    x_ptr,  # [rows, c] contiguous
    norm_weight_ptr,  # [c]
    norm_bias_ptr,  # [c]
    weight_1_ptr,  # [num_hidden, c] in the dtype of x
    bias_1_ptr,  # [num_hidden]
    weight_2_ptr,  # [c, num_hidden] in the dtype of x
    bias_2_ptr,  # [c]
    y_ptr,  # out: [rows, c]
    num_rows,
    num_hidden,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute y for a block of rows."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_C)
    in_columns = columns < C
    inside = (rows < num_rows)[:, None] & in_columns[None, :]
    norm_weight = tl.load(norm_weight_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    normalized, scaled, rstd = normalized_rows(
        x_ptr, rows, columns, inside, norm_weight, norm_bias, eps, C
    )
    u = scaled.to(x_ptr.dtype.element_ty)
    y = tl.zeros([BLOCK_ROWS, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_hidden, BLOCK_HIDDEN):
        hidden = first + tl.arange(0, BLOCK_HIDDEN)
        weight_1, pre_activation = hidden_layer(
            u, weight_1_ptr, bias_1_ptr, hidden, columns, num_hidden, C, PRECISION
        )
        h = tl.maximum(pre_activation, 0.0).to(u.dtype)
        in_weight_2 = in_columns[:, None] & (hidden < num_hidden)[None, :]
        weight_2 = tl.load(
            weight_2_ptr + columns[:, None] * num_hidden + hidden[None, :],
            mask=in_weight_2,
            other=0.0,
        )
        y += tl.dot(h, tl.trans(weight_2), input_precision=PRECISION)
    # x is reloaded, as registers are scarcer than cache bandwidth.
    offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    bias_2 = tl.load(bias_2_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    tl.store(y_ptr + offsets, (x + y + bias_2[None, :]).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def row_gradient_kernel(
    dy_ptr,  # [rows, c] contiguous
    x_ptr,  # as in forward_kernel
    norm_weight_ptr,
    norm_bias_ptr,
    weight_1_ptr,
    bias_1_ptr,
    weight_2_ptr,
    dx_ptr,  # out: [rows, c]
    partial_ptr,  # out: [programs, 3, c] float32, sums for norm weight, norm bias, bias_2
    num_rows,
    num_hidden,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute dx for a block of rows, and its part of the gradients of norm and bias_2."""
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.arange(0, BLOCK_C)
    in_columns = columns < C
    inside = (rows < num_rows)[:, None] & in_columns[None, :]
    norm_weight = tl.load(norm_weight_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    normalized, scaled, rstd = normalized_rows(
        x_ptr, rows, columns, inside, norm_weight, norm_bias, eps, C
    )
    u = scaled.to(x_ptr.dtype.element_ty)
    offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
    dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0)
    du = tl.zeros([BLOCK_ROWS, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_hidden, BLOCK_HIDDEN):
        hidden = first + tl.arange(0, BLOCK_HIDDEN)
        weight_1, pre_activation = hidden_layer(
            u, weight_1_ptr, bias_1_ptr, hidden, columns, num_hidden, C, PRECISION
        )
        in_weight_2 = in_columns[:, None] & (hidden < num_hidden)[None, :]
        weight_2 = tl.load(
            weight_2_ptr + columns[:, None] * num_hidden + hidden[None, :],
            mask=in_weight_2,
            other=0.0,
        )
        dh = tl.where(pre_activation > 0.0, tl.dot(dy, weight_2, input_precision=PRECISION), 0.0)
        du += tl.dot(dh.to(u.dtype), weight_1, input_precision=PRECISION)
    # Recomputed instead of kept in registers during the loop.
    normalized, scaled, rstd = normalized_rows(
        x_ptr, rows, columns, inside, norm_weight, norm_bias, eps, C
    )
    # dy is also the gradient of the residual.
    dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    dx = dy + input_gradient(du, normalized, rstd, norm_weight, C)
    tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
    partial = partial_ptr + tl.program_id(0).to(tl.int64) * 3 * C + columns
    tl.store(partial, tl.sum(du * normalized, axis=0), mask=in_columns)
    tl.store(partial + C, tl.sum(du, axis=0), mask=in_columns)
    tl.store(partial + 2 * C, tl.sum(dy, axis=0), mask=in_columns)


@triton.jit
def weight_gradient_kernel(
    dy_ptr,  # as in row_gradient_kernel
    x_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    weight_1_ptr,
    bias_1_ptr,
    weight_2_ptr,
    dweight_1_ptr,  # out: [splits, num_hidden, c] float32
    dweight_2_ptr,  # out: [splits, num_hidden, c] float32, transposed
    dbias_1_ptr,  # out: [splits, num_hidden] float32
    num_rows,
    num_hidden,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the weight gradients of a chunk of the hidden layer, for a part of the rows."""
    split, num_splits = tl.program_id(1), tl.num_programs(1)
    hidden = tl.program_id(0) * BLOCK_HIDDEN + tl.arange(0, BLOCK_HIDDEN)
    columns = tl.arange(0, BLOCK_C)
    in_columns, in_hidden = columns < C, hidden < num_hidden
    norm_weight = tl.load(norm_weight_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    weight_2 = tl.load(
        weight_2_ptr + columns[:, None] * num_hidden + hidden[None, :],
        mask=in_columns[:, None] & in_hidden[None, :],
        other=0.0,
    )
    dweight_1 = tl.zeros([BLOCK_HIDDEN, BLOCK_C], dtype=tl.float32)
    dweight_2 = tl.zeros([BLOCK_HIDDEN, BLOCK_C], dtype=tl.float32)
    dbias_1 = tl.zeros([BLOCK_HIDDEN], dtype=tl.float32)
    for first in range(split * BLOCK_ROWS, num_rows, num_splits * BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        inside = (rows < num_rows)[:, None] & in_columns[None, :]
        normalized, scaled, rstd = normalized_rows(
            x_ptr, rows, columns, inside, norm_weight, norm_bias, eps, C
        )
        u = scaled.to(x_ptr.dtype.element_ty)
        dy = tl.load(
            dy_ptr + rows.to(tl.int64)[:, None] * C + columns[None, :], mask=inside, other=0.0
        )
        weight_1, pre_activation = hidden_layer(
            u, weight_1_ptr, bias_1_ptr, hidden, columns, num_hidden, C, PRECISION
        )
        dh = tl.where(pre_activation > 0.0, tl.dot(dy, weight_2, input_precision=PRECISION), 0.0)
        dbias_1 += tl.sum(dh, axis=0)
        dweight_1 += tl.dot(tl.trans(dh.to(u.dtype)), u, input_precision=PRECISION)
        dweight_2 += tl.dot(
            tl.trans(tl.maximum(pre_activation, 0.0).to(u.dtype)), dy, input_precision=PRECISION
        )
    start = split.to(tl.int64) * num_hidden
    offsets = (start + hidden)[:, None] * C + columns[None, :]
    inside = in_hidden[:, None] & in_columns[None, :]
    tl.store(dweight_1_ptr + offsets, dweight_1, mask=inside)
    tl.store(dweight_2_ptr + offsets, dweight_2, mask=inside)
    tl.store(dbias_1_ptr + start + hidden, dbias_1, mask=in_hidden)
