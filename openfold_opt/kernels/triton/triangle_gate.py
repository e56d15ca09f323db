"""Gated and masked edges, channels before edges, with the projection before them.

The forward pass applies gate and mask to a tile of the projection in registers. It writes values
and gates only if the backward pass needs them.

ab has the channels of a, then those of b. With v the value and s = sigmoid(gate), ab = v * s *
mask. A gradient d(ab) gives d(v) = d(ab) * s * mask and d(gate) = d(ab) * mask * v * s * (1 - s),
both written directly to the gradient of the concatenated projection. The same kernel copies the
gradient of the output gate there.

The input may be normalized in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)
from openfold_opt.kernels.triton.layer_norm import centered_rows

BLOCK_EDGES = 64
MAX_BLOCK_CHANNELS = 64


@triton.jit
def _tile(num_edges, num_channels, width, BLOCK_EDGES: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """Return the offsets and masks of a tile.

    Returns:
        Offsets in [batch, edges, width] and in [batch, channels, edges]; offsets and mask of its
        edges in [batch, edges]; mask of the tile.
    """
    batch = tl.program_id(2).to(tl.int64)
    edges = tl.program_id(0) * BLOCK_EDGES + tl.arange(0, BLOCK_EDGES)
    channels = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    inside = (edges < num_edges)[:, None] & (channels < num_channels)[None, :]
    projected = (batch * num_edges + edges)[:, None] * width + channels[None, :]
    channels_first = (
        batch * num_channels * num_edges
        + channels.to(tl.int64)[None, :] * num_edges
        + edges[:, None]
    )
    return projected, channels_first, batch * num_edges + edges, edges < num_edges, inside


@triton.jit
def _forward_kernel(
    projected_ptr,  # [batch, edges, width] contiguous: num_channels values, as many gates, the rest
    mask_ptr,  # [batch, edges] contiguous
    ab_ptr,  # out: [batch, num_channels, edges] contiguous
    num_edges,
    num_channels,
    width,
    BLOCK_EDGES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    projected, channels_first, edges, is_edge, inside = _tile(
        num_edges, num_channels, width, BLOCK_EDGES, BLOCK_CHANNELS
    )
    value = tl.load(projected_ptr + projected, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(projected_ptr + projected + num_channels, mask=inside, other=0.0).to(tl.float32)
    mask = tl.load(mask_ptr + edges, mask=is_edge, other=0.0).to(tl.float32)
    ab = value * tl.sigmoid(gate) * mask[:, None]
    tl.store(ab_ptr + channels_first, ab.to(ab_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _load_weight(weight_ptr, channels, is_channel, inner, C_IN: tl.constexpr):
    """Load a transposed tile [BLOCK_IN, BLOCK_CHANNELS] of the weight."""
    return tl.load(
        weight_ptr + channels[None, :] * C_IN + inner[:, None],
        mask=is_channel[None, :] & (inner < C_IN)[:, None],
        other=0.0,
    )


@triton.jit
def _projection_kernel(
    x_ptr,  # [batch, edges, c_in] contiguous
    gamma_ptr,  # [c_in], weight and bias of the normalization of x; read if HAS_NORM
    beta_ptr,
    weight_ptr,  # [width, c_in] contiguous; the rows are in the order of the projection
    bias_ptr,  # [width]
    mask_ptr,  # [batch, edges] contiguous
    ab_ptr,  # out: [2, batch, num_channels / 2, edges] contiguous: a and b
    projected_ptr,  # out: [batch, edges, width] if HAS_PROJECTED, else its last part alone
    num_edges,
    num_channels,
    width,
    eps,
    C_IN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_EDGES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_PROJECTED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    batch = tl.program_id(2).to(tl.int64)
    edges = tl.program_id(1) * BLOCK_EDGES + tl.arange(0, BLOCK_EDGES)
    is_edge = edges < num_edges
    rows = batch * num_edges + edges
    gate_blocks = tl.cdiv(num_channels, BLOCK_CHANNELS)
    # Programs after those of the gated channels compute the output gate.
    is_rest = tl.program_id(0) >= gate_blocks
    first = tl.where(
        is_rest,
        2 * num_channels + (tl.program_id(0) - gate_blocks) * BLOCK_CHANNELS,
        tl.program_id(0) * BLOCK_CHANNELS,
    )
    channels = first + tl.arange(0, BLOCK_CHANNELS)
    is_channel = channels < tl.where(is_rest, width, num_channels)
    is_gated = is_channel & (not is_rest)
    inside = is_edge[:, None] & is_channel[None, :]
    if HAS_NORM:
        whole = tl.arange(0, BLOCK_C)[None, :]
        x_tile = x_ptr + rows[:, None] * C_IN + whole
        _, mean, rstd = centered_rows(x_tile, is_edge[:, None] & (whole < C_IN), eps, C_IN)
    value = tl.zeros([BLOCK_EDGES, BLOCK_CHANNELS], dtype=tl.float32)
    gate = tl.zeros([BLOCK_EDGES, BLOCK_CHANNELS], dtype=tl.float32)
    for start in range(0, C_IN, BLOCK_IN):
        inner = start + tl.arange(0, BLOCK_IN)
        x = tl.load(
            x_ptr + rows[:, None] * C_IN + inner[None, :],
            mask=is_edge[:, None] & (inner < C_IN)[None, :],
            other=0.0,
        )
        weight = _load_weight(weight_ptr, channels, is_channel, inner, C_IN)
        if HAS_NORM:
            gamma = tl.load(gamma_ptr + inner, mask=inner < C_IN, other=0.0).to(tl.float32)
            beta = tl.load(beta_ptr + inner, mask=inner < C_IN, other=0.0).to(tl.float32)
            normalized = (x.to(tl.float32) - mean[:, None]) * rstd[:, None]
            x = (normalized * gamma[None, :] + beta[None, :]).to(x.dtype)
        x = x.to(weight.dtype)
        value = tl.dot(x, weight, value, input_precision=PRECISION)
        weight = _load_weight(weight_ptr, channels + num_channels, is_gated, inner, C_IN)
        gate = tl.dot(x, weight, gate, input_precision=PRECISION)
    value += tl.load(bias_ptr + channels, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    dtype = projected_ptr.dtype.element_ty
    if HAS_PROJECTED:
        tile = projected_ptr + rows[:, None] * width + channels[None, :]
        tl.store(tile, value.to(dtype), mask=inside)
    elif is_rest:
        rest = rows[:, None] * (width - 2 * num_channels) + channels[None, :] - 2 * num_channels
        tl.store(projected_ptr + rest, value.to(dtype), mask=inside)
    if is_rest:
        return
    bias = tl.load(bias_ptr + num_channels + channels, mask=is_gated, other=0.0)
    gate += bias.to(tl.float32)[None, :]
    if HAS_PROJECTED:
        tile = projected_ptr + rows[:, None] * width + num_channels + channels[None, :]
        tl.store(tile, gate.to(dtype), mask=inside)
    mask = tl.load(mask_ptr + rows, mask=is_edge, other=0.0).to(tl.float32)
    ab = value * tl.sigmoid(gate) * mask[:, None]
    half = num_channels // 2
    side, in_half = channels // half, channels % half
    channels_first = ((side * tl.num_programs(2) + batch) * half + in_half)[None, :] * num_edges
    channels_first += edges[:, None]
    tl.store(ab_ptr + channels_first, ab.to(ab_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _copy_rest(
    drest_ptr,
    dprojected_ptr,
    first_channel,
    num_edges,
    num_before,
    width,
    BLOCK_EDGES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Copy a tile of the gradient of the output gate."""
    edges = tl.program_id(0) * BLOCK_EDGES + tl.arange(0, BLOCK_EDGES)
    channels = first_channel + tl.arange(0, BLOCK_CHANNELS)
    is_channel = channels < width - num_before
    inside = (edges < num_edges)[:, None] & is_channel[None, :]
    rows = (tl.program_id(2).to(tl.int64) * num_edges + edges)[:, None]
    drest = tl.load(
        drest_ptr + rows * (width - num_before) + channels[None, :], mask=inside, other=0.0
    )
    tl.store(dprojected_ptr + rows * width + num_before + channels[None, :], drest, mask=inside)


@triton.jit
def _backward_kernel(
    da_ptr,  # [batch, num_channels / 2, edges] contiguous
    db_ptr,  # as da
    drest_ptr,  # [batch, edges, width - 2 * num_channels] contiguous
    projected_ptr,  # as in _forward_kernel
    mask_ptr,
    dprojected_ptr,  # out: as projected
    num_edges,
    num_channels,
    width,
    BLOCK_EDGES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    gate_blocks = tl.cdiv(num_channels, BLOCK_CHANNELS)
    if tl.program_id(1) >= gate_blocks:
        _copy_rest(
            drest_ptr,
            dprojected_ptr,
            (tl.program_id(1) - gate_blocks) * BLOCK_CHANNELS,
            num_edges,
            2 * num_channels,
            width,
            BLOCK_EDGES,
            BLOCK_CHANNELS,
        )
        return
    projected, _, edges, is_edge, inside = _tile(
        num_edges, num_channels, width, BLOCK_EDGES, BLOCK_CHANNELS
    )
    batch = tl.program_id(2).to(tl.int64)
    half = num_channels // 2
    channels = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    edge_numbers = tl.program_id(0) * BLOCK_EDGES + tl.arange(0, BLOCK_EDGES)
    is_a = (channels < half)[None, :]
    in_half = tl.where(channels < half, channels, channels - half).to(tl.int64)
    offsets = batch * half * num_edges + in_half[None, :] * num_edges + edge_numbers[:, None]
    da = tl.load(da_ptr + offsets, mask=inside & is_a, other=0.0).to(tl.float32)
    db = tl.load(db_ptr + offsets, mask=inside & ~is_a, other=0.0).to(tl.float32)
    mask = tl.load(mask_ptr + edges, mask=is_edge, other=0.0).to(tl.float32)
    # Each channel belongs to a or to b; the other addend is 0.
    dab = (da + db) * mask[:, None]
    value = tl.load(projected_ptr + projected, mask=inside, other=0.0).to(tl.float32)
    sigmoid_gate = tl.sigmoid(
        tl.load(projected_ptr + projected + num_channels, mask=inside, other=0.0).to(tl.float32)
    )
    dvalue = dab * sigmoid_gate
    tl.store(dprojected_ptr + projected, dvalue.to(dprojected_ptr.dtype.element_ty), mask=inside)
    dgate = dab * value * sigmoid_gate * (1.0 - sigmoid_gate)
    tl.store(
        dprojected_ptr + projected + num_channels,
        dgate.to(dprojected_ptr.dtype.element_ty),
        mask=inside,
    )


def _grid(
    batch: int, num_edges: int, num_channels: int
) -> tuple[tuple[int, int, int], dict[str, int]]:
    block = min(MAX_BLOCK_CHANNELS, next_power_of_2(num_channels))
    grid = (divide_up(num_edges, BLOCK_EDGES), divide_up(num_channels, block), batch)
    return grid, {"BLOCK_EDGES": BLOCK_EDGES, "BLOCK_CHANNELS": block, "num_warps": 4}


@fused_op
def triangle_gate_forward(projected: Tensor, mask: Tensor, num_channels: int) -> Tensor:
    """Return the gated edges, of a and b concatenated or of one side.

    [batch, num_channels, N_1, N_2]
    """
    batch, n_1, n_2, width = projected.shape
    ab = torch.empty(batch, num_channels, n_1, n_2, dtype=projected.dtype, device=projected.device)
    grid, blocks = _grid(batch, n_1 * n_2, num_channels)
    launch(_forward_kernel, grid, projected, mask, ab, n_1 * n_2, num_channels, width, **blocks)
    return ab


@fused_op
def triangle_gate_projection(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    num_channels: int,
    has_projected: bool,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Project and gate the edges of a and b, and project the output gate.

    x: [batch, N_1, N_2, c_in] contiguous, in the dtype of weight; mask: [batch, N_1, N_2]; gamma,
    beta: None, or the normalization of x, which then may have another dtype.

    Returns:
        a and b [2, batch, num_channels / 2, N_1, N_2]; the whole projection [batch, N_1, N_2,
        width] if has_projected, else its last part, the output gate.
    """
    batch, n_1, n_2, c_in = x.shape
    width = weight.shape[0]
    num_projected = width if has_projected else width - 2 * num_channels
    ab = torch.empty(2, batch, num_channels // 2, n_1, n_2, dtype=weight.dtype, device=x.device)
    projected = torch.empty(batch, n_1, n_2, num_projected, dtype=weight.dtype, device=x.device)
    (edge_blocks, _, _), blocks = _grid(batch, n_1 * n_2, num_channels)
    blocks["BLOCK_CHANNELS"] = max(MIN_DOT_SIZE, blocks["BLOCK_CHANNELS"])
    channel_blocks = divide_up(num_channels, blocks["BLOCK_CHANNELS"])
    rest_blocks = divide_up(width - 2 * num_channels, blocks["BLOCK_CHANNELS"])
    # Float32 needs twice the bytes of bfloat16.
    block_in = 16 if weight.dtype == torch.float32 else 32
    launch(
        _projection_kernel,
        # The programs of the same edges are next to each other and share x in a cache.
        (channel_blocks + rest_blocks, edge_blocks, batch),
        # Empty tensors fill the arguments of a missing normalization.
        *(x, *(x.new_empty(0) if each is None else each for each in (gamma, beta))),
        *(weight, bias, mask, ab, projected),
        *(n_1 * n_2, num_channels, width, eps),
        C_IN=c_in,
        BLOCK_C=next_power_of_2(c_in),
        HAS_NORM=gamma is not None,
        BLOCK_IN=max(MIN_DOT_SIZE, min(block_in, next_power_of_2(c_in))),
        **blocks,
        HAS_PROJECTED=has_projected,
        PRECISION=dot_precision(weight.dtype),
        num_stages=2,
    )
    return ab, projected


@fused_op
def triangle_gate_backward(
    da: Tensor, db: Tensor, doutput_gate: Tensor, projected: Tensor, mask: Tensor
) -> Tensor:
    """Return the gradient of `projected`.

    da, db, doutput_gate: contiguous; doutput_gate is the gradient of the last part of `projected`.
    """
    batch, n_1, n_2, width = projected.shape
    num_channels = 2 * da.shape[1]
    dprojected = torch.empty_like(projected)
    (edge_blocks, gate_blocks, _), blocks = _grid(batch, n_1 * n_2, num_channels)
    rest_blocks = divide_up(width - 2 * num_channels, blocks["BLOCK_CHANNELS"])
    launch(
        _backward_kernel,
        (edge_blocks, gate_blocks + rest_blocks, batch),
        *(da, db, doutput_gate, projected, mask, dprojected),
        *(n_1 * n_2, num_channels, width),
        **blocks,
    )
    return dprojected
