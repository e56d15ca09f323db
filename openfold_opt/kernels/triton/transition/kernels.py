"""Normalization, two linear layers and residual in one pass.

With n the normalized x, u = weight * n + bias, h = ReLU(u W1^T + b1) and y = x + h W2^T + b2, a
gradient dy gives dh = (dy W2) where h > 0, du = dh W1, dW1 = dh^T u, dW2 = dy^T h.

The forward pass does not write the hidden layer to memory: a program keeps one chunk of it in
registers at a time. The backward pass writes u, h and dh, so that every product is computed once:
dW1 and dW2 are sums over all rows, which other programs would have to recompute h and dh for.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.layer_norm import centered_rows, input_gradient


@triton.jit
def normalized_rows(tile, inside, norm_weight, norm_bias, eps, C: tl.constexpr):
    """Load rows of C channels, and return u float32. Rows outside have the bias."""
    centered, mean, rstd = centered_rows(tile, inside, eps, C)
    return centered * rstd[:, None] * norm_weight[None, :] + norm_bias[None, :]


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
    offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
    u = normalized_rows(x_ptr + offsets, inside, norm_weight, norm_bias, eps, C)
    u = u.to(x_ptr.dtype.element_ty)
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
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    bias_2 = tl.load(bias_2_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    tl.store(y_ptr + offsets, (x + y + bias_2[None, :]).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def write_normalized(
    x_ptr,
    u_ptr,  # out
    norm_weight,
    norm_bias,
    first_row,
    num_rows,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    NORM_ROWS: tl.constexpr,
):
    """Write u for a block of rows, a few rows at a time: in float32, all need many registers."""
    columns = tl.arange(0, BLOCK_C)
    for part in tl.range(0, BLOCK_ROWS, NORM_ROWS, num_stages=1):
        rows = first_row + part + tl.arange(0, NORM_ROWS)
        inside = (rows < num_rows)[:, None] & (columns < C)[None, :]
        offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
        u = normalized_rows(x_ptr + offsets, inside, norm_weight, norm_bias, eps, C)
        tl.store(u_ptr + offsets, u.to(u_ptr.dtype.element_ty), mask=inside)


@triton.jit
def replace_by_input_gradient(
    dx_ptr,  # du before, dx after
    dy_ptr,
    x_ptr,
    norm_weight,
    first_row,
    num_rows,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    NORM_ROWS: tl.constexpr,
):
    """Replace du by dx for a block of rows. Return sums [c] for norm weight, norm bias, bias_2."""
    columns = tl.arange(0, BLOCK_C)
    weight_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    bias_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    dy_sum = tl.zeros([BLOCK_C], dtype=tl.float32)
    for part in tl.range(0, BLOCK_ROWS, NORM_ROWS, num_stages=1):
        rows = first_row + part + tl.arange(0, NORM_ROWS)
        inside = (rows < num_rows)[:, None] & (columns < C)[None, :]
        offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
        centered, mean, rstd = centered_rows(x_ptr + offsets, inside, eps, C)
        normalized = centered * rstd[:, None]
        du = tl.load(dx_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        # dy is also the gradient of the residual.
        dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        dx = dy + input_gradient(du, normalized, rstd, norm_weight, C)
        tl.store(dx_ptr + offsets, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        weight_sum += tl.sum(du * normalized, axis=0)
        bias_sum += tl.sum(du, axis=0)
        dy_sum += tl.sum(dy, axis=0)
    return weight_sum, bias_sum, dy_sum


@triton.jit
def row_gradient_kernel(
    dy_ptr,  # [rows, c] contiguous
    x_ptr,  # as in forward_kernel
    norm_weight_ptr,
    norm_bias_ptr,
    weight_1_ptr,
    bias_1_ptr,
    weight_2_ptr,
    u_ptr,  # out: [rows, c]
    h_ptr,  # out: [rows, num_hidden]
    dh_ptr,  # out: [rows, num_hidden]
    dx_ptr,  # out: [rows, c]
    partial_ptr,  # out: [programs, num_hidden + 3 * c] float32, sums for bias_1, norm weight,
    # norm bias and bias_2
    num_rows,
    num_hidden,
    eps,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    NORM_ROWS: tl.constexpr,  # rows that are normalized at a time; divides BLOCK_ROWS
    PRECISION: tl.constexpr,
):
    """Compute dx, u, h and dh for a block of rows, and its part of the small gradients."""
    first_row = tl.program_id(0) * BLOCK_ROWS
    columns = tl.arange(0, BLOCK_C)
    in_columns = columns < C
    norm_weight = tl.load(norm_weight_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    norm_bias = tl.load(norm_bias_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
    write_normalized(
        x_ptr,
        u_ptr,
        norm_weight,
        norm_bias,
        first_row,
        num_rows,
        eps,
        C,
        BLOCK_C,
        BLOCK_ROWS,
        NORM_ROWS,
    )
    tl.debug_barrier()
    rows = first_row + tl.arange(0, BLOCK_ROWS)
    in_rows = rows < num_rows
    inside = in_rows[:, None] & in_columns[None, :]
    offsets = rows.to(tl.int64)[:, None] * C + columns[None, :]
    u = tl.load(u_ptr + offsets, mask=inside, other=0.0)
    dy = tl.load(dy_ptr + offsets, mask=inside, other=0.0)
    partial = partial_ptr + tl.program_id(0).to(tl.int64) * (num_hidden + 3 * C)
    du = tl.zeros([BLOCK_ROWS, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_hidden, BLOCK_HIDDEN):
        hidden = first + tl.arange(0, BLOCK_HIDDEN)
        in_hidden = hidden < num_hidden
        weight_1, pre_activation = hidden_layer(
            u, weight_1_ptr, bias_1_ptr, hidden, columns, num_hidden, C, PRECISION
        )
        weight_2 = tl.load(
            weight_2_ptr + columns[:, None] * num_hidden + hidden[None, :],
            mask=in_columns[:, None] & in_hidden[None, :],
            other=0.0,
        )
        dh = tl.where(pre_activation > 0.0, tl.dot(dy, weight_2, input_precision=PRECISION), 0.0)
        du += tl.dot(dh.to(u.dtype), weight_1, input_precision=PRECISION)
        tl.store(partial + hidden, tl.sum(dh, axis=0), mask=in_hidden)
        hidden_offsets = rows.to(tl.int64)[:, None] * num_hidden + hidden[None, :]
        stored = in_rows[:, None] & in_hidden[None, :]
        h = tl.maximum(pre_activation, 0.0)
        tl.store(h_ptr + hidden_offsets, h.to(u.dtype), mask=stored)
        tl.store(dh_ptr + hidden_offsets, dh.to(u.dtype), mask=stored)
    tl.store(dx_ptr + offsets, du.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.debug_barrier()
    weight_sum, bias_sum, dy_sum = replace_by_input_gradient(
        dx_ptr,
        dy_ptr,
        x_ptr,
        norm_weight,
        first_row,
        num_rows,
        eps,
        C,
        BLOCK_C,
        BLOCK_ROWS,
        NORM_ROWS,
    )
    partial += num_hidden + columns
    tl.store(partial, weight_sum, mask=in_columns)
    tl.store(partial + C, bias_sum, mask=in_columns)
    tl.store(partial + 2 * C, dy_sum, mask=in_columns)
