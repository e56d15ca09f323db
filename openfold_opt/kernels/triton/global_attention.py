"""Global attention with one program per column of the extra MSA; it reads the rows twice.

The products with one query per head are too narrow for tensor cores and are computed as sums in
registers. With s = sigmoid(gate), P the softmax over rows, o = P^T v [heads, c] and out = o * s, a
gradient d(out) gives

    do = sum over rows of d(out) * s,   d(gate) = d(out) * o * s * (1 - s),
    delta = sum over channels of do * o,   dS = P * (v do^T - delta) * scale,
    dq = dS^T k,   dk = dS q,   dv = P do.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.triton.launching import fused_op, launch, next_power_of_2

ELEMENTS_PER_BLOCK = 4096
"""Elements of the largest tile in registers, [rows, heads, c]."""


@triton.jit
def _logits(k, q, rows, num_rows, mask_ptr, scale, mask_inf):
    """Return logits [rows, heads] of k [rows, c] and q [heads, c]; -inf beyond the last row."""
    mask = tl.load(mask_ptr + rows, mask=rows < num_rows, other=0.0).to(tl.float32)
    logits = (
        tl.sum(k[:, None, :] * q[None, :, :], axis=2) * scale + ((mask - 1.0) * mask_inf)[:, None]
    )
    return tl.where((rows < num_rows)[:, None], logits, float("-inf"))


@triton.jit
def _forward_kernel(
    q_ptr,  # [columns, num_heads, c]; columns are batch * groups; all tensors are contiguous
    projected_ptr,  # [columns, rows, 2 * c + num_heads * c]: k, v, gate
    mask_ptr,  # [columns, rows]
    out_ptr,  # out: [columns, rows, num_heads, c]
    o_ptr,  # out: [columns, num_heads, c] float32, result before the gate
    maximum_ptr,  # out: [columns, num_heads] float32, maximum of the logits
    total_ptr,  # out: as maximum, sum of exp(logits - maximum)
    num_rows,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    column = tl.program_id(0).to(tl.int64)
    width = 2 * C + HEADS * C
    heads, channels = tl.arange(0, BLOCK_HEADS), tl.arange(0, BLOCK_C)
    in_query = (heads < HEADS)[:, None] & (channels < C)[None, :]
    in_heads = heads[:, None] * C + channels[None, :]
    q = tl.load(q_ptr + column * HEADS * C + in_heads, mask=in_query, other=0.0).to(tl.float32)
    projected = projected_ptr + column * num_rows * width
    maximum = tl.full([BLOCK_HEADS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_HEADS], dtype=tl.float32)
    accumulator = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_rows, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        inside = (rows < num_rows)[:, None] & (channels < C)[None, :]
        tile = projected + rows[:, None] * width + channels[None, :]
        k = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(tile + C, mask=inside, other=0.0).to(tl.float32)
        logits = _logits(k, q, rows, num_rows, mask_ptr + column * num_rows, scale, mask_inf)
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=0))
        weights = tl.exp(logits - new_maximum[None, :])
        rescale = tl.exp(maximum - new_maximum)
        total = total * rescale + tl.sum(weights, axis=0)
        accumulator = accumulator * rescale[:, None] + tl.sum(
            weights[:, :, None] * v[:, None, :], axis=0
        )
        maximum = new_maximum
    o = accumulator / total[:, None]
    tl.store(o_ptr + column * HEADS * C + in_heads, o, mask=in_query)
    tl.store(maximum_ptr + column * HEADS + heads, maximum, mask=heads < HEADS)
    tl.store(total_ptr + column * HEADS + heads, total, mask=heads < HEADS)
    for first in range(0, num_rows, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        inside = (rows < num_rows)[:, None, None] & in_query[None, :, :]
        gate = tl.load(
            projected + 2 * C + rows[:, None, None] * width + in_heads[None, :, :],
            mask=inside,
            other=0.0,
        ).to(tl.float32)
        out_offsets = (column * num_rows + rows)[:, None, None] * (HEADS * C) + in_heads[None, :, :]
        tl.store(
            out_ptr + out_offsets,
            (o[None, :, :] * tl.sigmoid(gate)).to(out_ptr.dtype.element_ty),
            mask=inside,
        )


@triton.jit
def _backward_kernel(
    dout_ptr,  # as out in _forward_kernel; the next six as there, all inputs
    q_ptr,
    projected_ptr,
    mask_ptr,
    o_ptr,
    maximum_ptr,
    total_ptr,
    dq_ptr,  # out: as q
    dprojected_ptr,  # out: as projected
    num_rows,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    column = tl.program_id(0).to(tl.int64)
    width = 2 * C + HEADS * C
    heads, channels = tl.arange(0, BLOCK_HEADS), tl.arange(0, BLOCK_C)
    in_query = (heads < HEADS)[:, None] & (channels < C)[None, :]
    in_heads = heads[:, None] * C + channels[None, :]
    q = tl.load(q_ptr + column * HEADS * C + in_heads, mask=in_query, other=0.0).to(tl.float32)
    o = tl.load(o_ptr + column * HEADS * C + in_heads, mask=in_query, other=0.0)
    projected, dprojected = (
        projected_ptr + column * num_rows * width,
        dprojected_ptr + column * num_rows * width,
    )
    do = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_rows, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        inside = (rows < num_rows)[:, None, None] & in_query[None, :, :]
        gate_offsets = 2 * C + rows[:, None, None] * width + in_heads[None, :, :]
        sigmoid_gate = tl.sigmoid(
            tl.load(projected + gate_offsets, mask=inside, other=0.0).to(tl.float32)
        )
        out_offsets = (column * num_rows + rows)[:, None, None] * (HEADS * C) + in_heads[None, :, :]
        dout = tl.load(dout_ptr + out_offsets, mask=inside, other=0.0).to(tl.float32)
        do += tl.sum(dout * sigmoid_gate, axis=0)
        dgate = dout * o[None, :, :] * sigmoid_gate * (1.0 - sigmoid_gate)
        tl.store(dprojected + gate_offsets, dgate.to(dprojected_ptr.dtype.element_ty), mask=inside)
    delta = tl.sum(do * o, axis=1)
    maximum = tl.load(maximum_ptr + column * HEADS + heads, mask=heads < HEADS, other=0.0)
    total = tl.load(total_ptr + column * HEADS + heads, mask=heads < HEADS, other=1.0)
    dq = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_rows, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        inside = (rows < num_rows)[:, None] & (channels < C)[None, :]
        tile = rows[:, None] * width + channels[None, :]
        k = tl.load(projected + tile, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(projected + tile + C, mask=inside, other=0.0).to(tl.float32)
        logits = _logits(k, q, rows, num_rows, mask_ptr + column * num_rows, scale, mask_inf)
        weights = tl.exp(logits - maximum[None, :]) / total[None, :]
        dweights = tl.sum(v[:, None, :] * do[None, :, :], axis=2)
        dlogits = weights * (dweights - delta[None, :]) * scale
        dq += tl.sum(dlogits[:, :, None] * k[:, None, :], axis=0)
        dk = tl.sum(dlogits[:, :, None] * q[None, :, :], axis=1)
        dv = tl.sum(weights[:, :, None] * do[None, :, :], axis=1)
        tl.store(dprojected + tile, dk.to(dprojected_ptr.dtype.element_ty), mask=inside)
        tl.store(dprojected + tile + C, dv.to(dprojected_ptr.dtype.element_ty), mask=inside)
    tl.store(dq_ptr + column * HEADS * C + in_heads, dq.to(dq_ptr.dtype.element_ty), mask=in_query)


def _constants(q: Tensor, num_heads: int) -> dict[str, int]:
    c = q.shape[-1] // num_heads
    block_c, block_heads = next_power_of_2(c), next_power_of_2(num_heads)
    block_rows = max(1, ELEMENTS_PER_BLOCK // (block_c * block_heads))
    return {
        "C": c,
        "BLOCK_C": block_c,
        "HEADS": num_heads,
        "BLOCK_HEADS": block_heads,
        "BLOCK_ROWS": block_rows,
        "num_warps": 4,
    }


@fused_op
def global_attention_forward(
    q: Tensor, projected: Tensor, mask: Tensor, num_heads: int, mask_inf: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gated output and what the backward pass needs.

    Returns:
        out [batch, groups, N, num_heads * c]; o in the shape of q, float32; statistics
        [2, batch, groups, num_heads] float32: maximum and sum of the softmax.
    """
    batch, groups, n, _ = projected.shape
    constants = _constants(q, num_heads)
    out = torch.empty(batch, groups, n, q.shape[-1], dtype=projected.dtype, device=q.device)
    o = torch.empty(q.shape, dtype=torch.float32, device=q.device)
    statistics = torch.empty(2, batch, groups, num_heads, dtype=torch.float32, device=q.device)
    scales = (1.0 / math.sqrt(constants["C"]), mask_inf)
    launch(
        _forward_kernel,
        (batch * groups,),
        q,
        projected,
        mask,
        out,
        o,
        *statistics,
        n,
        *scales,
        **constants,
    )
    return out, o, statistics


@fused_op
def global_attention_backward(
    dout: Tensor,
    q: Tensor,
    projected: Tensor,
    mask: Tensor,
    o: Tensor,
    statistics: Tensor,
    num_heads: int,
    mask_inf: float,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of q and projected."""
    batch, groups, n, _ = projected.shape
    constants = _constants(q, num_heads)
    dq, dprojected = torch.empty_like(q), torch.empty_like(projected)
    scales = (1.0 / math.sqrt(constants["C"]), mask_inf)
    tensors = (dout, q, projected, mask, o, *statistics, dq, dprojected)
    launch(_backward_kernel, (batch * groups,), *tensors, n, *scales, **constants)
    return dq, dprojected


class _GlobalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, projected, mask, num_heads, mask_inf):
        out, o, statistics = global_attention_forward(q, projected, mask, num_heads, mask_inf)
        ctx.save_for_backward(q, projected, mask, o, statistics)
        ctx.constants = (num_heads, mask_inf)
        return out

    @staticmethod
    def backward(ctx, dout):
        dq, dprojected = global_attention_backward(
            dout.contiguous(), *ctx.saved_tensors, *ctx.constants
        )
        return dq, dprojected, None, None, None


def global_attention(
    q: Tensor, projected: Tensor, *, num_heads: int, mask: Tensor, mask_inf: float
) -> Tensor:
    """Compute kernels.reference.global_attention with one launch in each pass."""
    return _GlobalAttention.apply(
        q.contiguous(), projected.contiguous(), mask.contiguous(), num_heads, mask_inf
    )
