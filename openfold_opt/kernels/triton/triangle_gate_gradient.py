"""Backward pass of gated and masked edges, of their projection, and of the normalization before it.

The gradients of values and gates (triangle_gate.py) are computed tile by tile, written for the
gradient of the weight, and multiplied with the weight while they are in registers. The rest is the
backward pass of a wide projection (wide_projection).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

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
from openfold_opt.kernels.triton.layer_norm import gradient_rows
from openfold_opt.kernels.triton.wide_projection.kernels import replace_by_input_gradient
from openfold_opt.kernels.triton.wide_projection.wide_projection import NORM_ELEMENTS_PER_WARP

MAX_ROWS = 64
"""Largest number of edges of a block."""
MAX_BLOCK_CHANNELS = 32
"""Largest number of channels of a block of values or gates in bfloat16; half of it in float32."""


@triton.jit
def _add_columns(
    dy,
    dcolumns,  # [rows, columns], gradient of a part of the projection
    columns,
    is_column,
    weight_ptr,
    dprojected_ptr,
    sums,
    rows,
    num_rows,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write a part of the gradient of the projection and its sums; return dy plus its product."""
    channels = tl.arange(0, BLOCK_C)
    tl.store(sums + columns, tl.sum(dcolumns, axis=0), mask=is_column)
    weight = tl.load(
        weight_ptr + columns[:, None] * C + channels[None, :],
        mask=is_column[:, None] & (channels < C)[None, :],
        other=0.0,
    )
    dcolumns = dcolumns.to(weight.dtype)
    tl.store(
        dprojected_ptr + rows.to(tl.int64)[:, None] * WIDTH + columns[None, :],
        dcolumns,
        mask=(rows < num_rows)[:, None] & is_column[None, :],
    )
    return tl.dot(dcolumns, weight, dy, input_precision=PRECISION)


@triton.jit
def _add_side(
    dy,
    dside_ptr,  # [batch, half, edges] contiguous
    projected_ptr,
    mask,  # [rows]
    product,
    rows,
    num_rows,
    num_edges,
    FIRST: tl.constexpr,  # first column of the values of the side
    HALF: tl.constexpr,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return dy plus the products of the gradients of values and gates of a side."""
    in_rows = (rows < num_rows)[:, None]
    edges = (rows // num_edges).to(tl.int64) * HALF * num_edges + rows % num_edges
    projected_rows = projected_ptr + rows.to(tl.int64)[:, None] * WIDTH
    for first in range(0, HALF, BLOCK_CHANNELS):
        channels = first + tl.arange(0, BLOCK_CHANNELS)
        is_channel = channels < HALF
        inside = in_rows & is_channel[None, :]
        offsets = edges[:, None] + channels.to(tl.int64)[None, :] * num_edges
        dside = tl.load(dside_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        values = FIRST + channels
        gates = values + 2 * HALF
        value = tl.load(projected_rows + values[None, :], mask=inside, other=0.0).to(tl.float32)
        gate = tl.load(projected_rows + gates[None, :], mask=inside, other=0.0).to(tl.float32)
        sigmoid_gate = tl.sigmoid(gate)
        dvalue = dside * mask[:, None] * sigmoid_gate
        dgate = dvalue * value * (1.0 - sigmoid_gate)
        dy = _add_columns(dy, dvalue, values, is_channel, *product, WIDTH, C, BLOCK_C, PRECISION)
        dy = _add_columns(dy, dgate, gates, is_channel, *product, WIDTH, C, BLOCK_C, PRECISION)
    return dy


@triton.jit
def _backward_kernel(
    da_ptr,  # [batch, half, edges] contiguous
    db_ptr,  # as da
    drest_ptr,  # [batch, edges, width - 4 * half] contiguous
    projected_ptr,  # [batch, edges, width] contiguous: values of a and b, their gates, the rest
    mask_ptr,  # [batch, edges] contiguous
    weight_ptr,  # [width, c] contiguous
    x_ptr,  # [size_0, size_1, size_2, c] with strides: the edges before the normalization
    gamma_ptr,  # [c]
    beta_ptr,  # [c]
    added_ptr,  # strides of x, added to dx; read if HAS_ADDED
    dprojected_ptr,  # out: as projected
    dx_ptr,  # out: strides of x; dy before
    y_ptr,  # out: [rows, c] contiguous, normalized x
    partial_ptr,  # out: [programs, 2 * c + width] float32: sums for gamma, beta, bias
    num_rows,
    num_edges,
    size_1,
    size_2,
    stride_0,
    stride_1,
    stride_2,
    channel_stride,
    eps,
    HALF: tl.constexpr,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    NORM_ROWS: tl.constexpr,  # rows that are normalized at a time; divides BLOCK_ROWS
    HAS_ADDED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    first_row = tl.program_id(0) * BLOCK_ROWS
    rows, channels = first_row + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_C)
    in_rows, in_channels = rows < num_rows, channels < C
    partial = partial_ptr + tl.program_id(0).to(tl.int64) * (2 * C + WIDTH)
    product = (weight_ptr, dprojected_ptr, partial + 2 * C, rows, num_rows)
    mask = tl.load(mask_ptr + rows, mask=in_rows, other=0.0).to(tl.float32)
    dy = tl.zeros([BLOCK_ROWS, BLOCK_C], dtype=tl.float32)
    side = (projected_ptr, mask, product, rows, num_rows, num_edges)
    dy = _add_side(dy, da_ptr, *side, 0, HALF, WIDTH, C, BLOCK_C, BLOCK_CHANNELS, PRECISION)
    dy = _add_side(dy, db_ptr, *side, HALF, HALF, WIDTH, C, BLOCK_C, BLOCK_CHANNELS, PRECISION)
    rest: tl.constexpr = WIDTH - 4 * HALF
    for first in range(0, rest, BLOCK_CHANNELS):
        in_rest = first + tl.arange(0, BLOCK_CHANNELS)
        drest = tl.load(
            drest_ptr + rows.to(tl.int64)[:, None] * rest + in_rest[None, :],
            mask=in_rows[:, None] & (in_rest < rest)[None, :],
            other=0.0,
        ).to(tl.float32)
        columns = 4 * HALF + in_rest
        dy = _add_columns(
            dy, drest, columns, in_rest < rest, *product, WIDTH, C, BLOCK_C, PRECISION
        )
    offsets = row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2)
    dx_tile = dx_ptr + offsets[:, None] + channels[None, :].to(tl.int64) * channel_stride
    tl.store(dx_tile, dy.to(dx_ptr.dtype.element_ty), mask=in_rows[:, None] & in_channels[None, :])
    tl.debug_barrier()
    gamma_sum, beta_sum = replace_by_input_gradient(
        *(dx_ptr, y_ptr, x_ptr, added_ptr, gamma_ptr, beta_ptr, first_row),
        *(num_rows, size_1, size_2, stride_0, stride_1, stride_2, channel_stride, eps),
        *(C, BLOCK_C, BLOCK_ROWS, NORM_ROWS, HAS_ADDED),
    )
    tl.store(partial + channels, gamma_sum, mask=in_channels)
    tl.store(partial + C + channels, beta_sum, mask=in_channels)


def _constants(dtype: torch.dtype, half: int, width: int, c: int) -> Options:
    # Float32 needs twice the bytes of bfloat16.
    parts = 2 if dtype == torch.float32 else 1
    block_c = max(MIN_DOT_SIZE, next_power_of_2(c))
    num_warps = 8 if block_c > 128 else 4
    block_rows = MAX_ROWS // parts
    block_channels = min(MAX_BLOCK_CHANNELS // parts, next_power_of_2(half))
    return {
        "HALF": half,
        "WIDTH": width,
        "C": c,
        "BLOCK_C": block_c,
        "BLOCK_ROWS": block_rows,
        "BLOCK_CHANNELS": max(MIN_DOT_SIZE, block_channels),
        "NORM_ROWS": min(block_rows, NORM_ELEMENTS_PER_WARP * num_warps // block_c),
        "PRECISION": dot_precision(dtype),
        "num_warps": num_warps,
        "num_stages": 2,
    }


@fused_op
def triangle_gate_gradient(
    da: Tensor,
    db: Tensor,
    doutput_gate: Tensor,
    projected: Tensor,
    mask: Tensor,
    weight: Tensor,
    z: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    added: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradient of z, and what the gradients of the parameters need.

    da, db, doutput_gate, projected, mask: as for triangle_gate_backward; weight: [width, c] of the
    projection; z: [batch, N_1, N_2, c] with any strides, before the normalization; added: in the
    shape of z, added to its gradient.

    Returns:
        The gradients of projected and of z; normalized z [rows, c] in the dtype of weight; partial
        sums for wide_projection_sums.
    """
    (rows, dz, added), (width, c) = gradient_rows(z, added), weight.shape
    constants = _constants(weight.dtype, da.shape[1], width, c)
    dprojected = torch.empty_like(projected)
    y = torch.empty(rows.count, c, dtype=weight.dtype, device=z.device)
    programs = divide_up(rows.count, constants["BLOCK_ROWS"])
    partial = torch.empty(programs, 2 * c + width, dtype=torch.float32, device=z.device)
    launch(
        _backward_kernel,
        (programs,),
        # Of the projection, the kernel reads the values and gates of the edges.
        *(da, db, doutput_gate, projected[..., : 4 * da.shape[1]], mask, weight.contiguous()),
        *(rows.tensor, gamma, beta, dz.new_empty(0) if added is None else added),
        *(dprojected, dz, y, partial),
        *(rows.count, z.shape[1] * z.shape[2], *rows.layout, rows.channel_stride, eps),
        **constants,
        HAS_ADDED=added is not None,
    )
    return dprojected, dz, y, partial
