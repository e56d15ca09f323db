"""Gated and masked edges, channels before edges, in one pass over memory instead of four.

ab has the channels of a, then those of b. With v the value and s = sigmoid(gate), ab = v * s *
mask. A gradient d(ab) gives d(v) = d(ab) * s * mask and d(gate) = d(ab) * mask * v * s * (1 - s),
both written directly to the gradient of the concatenated projection.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import divide_up, fused_op, launch, next_power_of_2

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
def _backward_kernel(
    da_ptr,  # [batch, num_channels / 2, edges] contiguous
    db_ptr,  # as da
    projected_ptr,  # as in _forward_kernel
    mask_ptr,
    dprojected_ptr,  # out: as projected; the rest (the output gate) is not written
    num_edges,
    num_channels,
    width,
    BLOCK_EDGES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
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
    tl.store(
        dprojected_ptr + projected,
        (dab * sigmoid_gate).to(dprojected_ptr.dtype.element_ty),
        mask=inside,
    )
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
def triangle_gate_backward(
    da: Tensor, db: Tensor, doutput_gate: Tensor, projected: Tensor, mask: Tensor
) -> Tensor:
    """Return the gradient of `projected`. doutput_gate: gradient of its last part."""
    batch, n_1, n_2, width = projected.shape
    c_hidden = da.shape[1]
    dprojected = torch.empty_like(projected)
    grid, blocks = _grid(batch, n_1 * n_2, 2 * c_hidden)
    launch(
        _backward_kernel,
        grid,
        da,
        db,
        projected,
        mask,
        dprojected,
        n_1 * n_2,
        2 * c_hidden,
        width,
        **blocks,
    )
    dprojected[..., 4 * c_hidden :] = doutput_gate
    return dprojected


class _TriangleGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, projected, mask, c_hidden):
        ctx.save_for_backward(projected, mask)
        ab = triangle_gate_forward(projected, mask, 2 * c_hidden)
        a, b = ab.chunk(2, dim=1)
        return a, b, projected[..., 4 * c_hidden :]

    @staticmethod
    def backward(ctx, da, db, doutput_gate):
        projected, mask = ctx.saved_tensors
        return (
            triangle_gate_backward(da.contiguous(), db.contiguous(), doutput_gate, projected, mask),
            None,
            None,
        )


def triangle_gate(
    projected: Tensor, mask: Tensor, *, c_hidden: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.triangle_edges.triangle_gate with one launch in each pass."""
    return _TriangleGate.apply(projected.contiguous(), mask.contiguous(), c_hidden)
