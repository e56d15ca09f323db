"""Gated self-attention by pieces of a few groups, from normalised input to update: projections, logits and weights never leave the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.pieces import Scratch, add_product, piece_length, product_into, sums_like

_aten = torch.ops.aten
_FLOAT32_BYTES = 4

AnyRoom = TypeVar("AnyRoom", bound="_Room")


def self_attention(
    x: Tensor,
    projection: tuple[Tensor, Tensor],
    output: tuple[Tensor, Tensor],
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Callable[[], Tensor] | None = None,
) -> Tensor:
    """kernels/reference/self_attention.py, which has shapes and meaning; keeps its inputs only and computes the rest again."""
    return _SelfAttention.apply(x, *projection, *output, mask, None if bias is None else bias(), (num_heads, mask_inf))


class _Room:
    """Scratch memory for a piece of n groups, and every view of it that a pass looks through: making a view takes as long as filling 8 KiB.

    n groups of num_heads heads make n * num_heads matrix products.
    """

    def __init__(self, sizes: tuple[int, int, int, int], scratch: Scratch) -> None:
        """sizes: n, N, num_heads and c of a head"""
        n, length, num_heads, c = sizes
        self.joined = scratch.take("joined", n * length, 4 * num_heads * c)
        """Projections q, k, v and gate, later their gradient"""
        by_head = self.joined.view(n, length, 4, num_heads, c)
        self.joined_qkv, self.joined_gate = by_head[:, :, :3].permute(2, 0, 3, 1, 4), by_head[:, :, 3]
        self.heads = scratch.take("heads", 3, n, num_heads, length, c)
        self.q, self.k, self.v = self.heads.flatten(1, 2)
        self.k_t, self.v_t = self.k.mT, self.v.mT
        self.gate = scratch.take("gate", n, length, num_heads, c)
        """After its sigmoid"""
        self.weights = scratch.take("weights", n * num_heads, length, length, dtype=torch.float32)
        self.weights_by_group = self.weights.unflatten(0, (n, num_heads))
        self.attended = scratch.take("attended", n * num_heads, length, c)
        """Later its gradient"""
        self.attended_behind = self.attended.unflatten(0, (n, num_heads)).transpose(1, 2)
        self.gated = scratch.take("gated", n, length, num_heads, c)
        self.gated_rows = self.gated.view(n * length, num_heads * c)
        """Which are projected to the output"""


class _BackwardRoom(_Room):
    """With what only the backward pass needs."""

    def __init__(self, sizes: tuple[int, int, int, int], scratch: Scratch) -> None:
        super().__init__(sizes, scratch)
        n, length, num_heads, c = sizes
        self.d_gated_rows = scratch.take("d_gated", n * length, num_heads * c)
        self.d_gated = self.d_gated_rows.view(self.gated.shape)
        d_heads = scratch.take("d_heads", 3, n * num_heads, length, c)
        self.d_q, self.d_k, self.d_v = d_heads
        self.d_heads = d_heads.unflatten(1, (n, num_heads))
        self.d_weights = scratch.take("d_weights", *self.weights.shape)


class _Attention:
    """What both passes do with a piece. All intermediate results lie in scratch memory, and each is passed over as rarely as can be."""

    def __init__(self, x: Tensor, projection: tuple[Tensor, Tensor], mask: Tensor, bias: Tensor | None, sizes: tuple[int, float]) -> None:
        num_heads, mask_inf = sizes
        w_in, b_in = projection
        length, c = x.shape[2], len(w_in) // (4 * num_heads)
        offset = b_in.view(4, num_heads, c)
        self._w_in_t, self._qkv_offset, self._gate_offset = w_in.t(), offset[:3, None, :, None], offset[3]
        self._mask_offset = (mask_inf * (mask.float() - 1.0))[:, :, None, None, :]
        self._bias = None if bias is None else bias.float()
        self._scale, self._scratch = 1.0 / math.sqrt(c), Scratch(w_in)
        self._length = piece_length(length * max(num_heads * length * _FLOAT32_BYTES, len(w_in) * w_in.element_size()))
        self._group_sizes, self._rooms = (length, num_heads, c), {}

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
        """Sample, mask offset of some groups, and their rows of each tensor [batch, groups, N, c]: [n * N, c]."""
        for sample, mask_offset in enumerate(self._mask_offset):
            parts = zip(*(x[sample].split(self._length) for x in tensors))
            for offset, part in zip(mask_offset.split(self._length), parts):
                yield sample, offset, *(x.flatten(0, 1) for x in part)

    def attend(self, x: Tensor, sample: int, mask_offset: Tensor, room_type: type[AnyRoom]) -> AnyRoom:
        """Fills a room up to what is projected to the output. x: [n * N, c_in] in the dtype of the weights"""
        n = len(mask_offset)
        if n not in self._rooms:
            self._rooms[n] = room_type((n, *self._group_sizes), self._scratch)
        room = self._rooms[n]
        torch.mm(x, self._w_in_t, out=room.joined)
        # the way to heads in front passes over everything anyway, so the bias is added there
        torch.add(room.joined_qkv, self._qkv_offset, out=room.heads)
        torch.add(room.joined_gate, self._gate_offset, out=room.gate).sigmoid_()
        if self._bias is None:
            room.weights_by_group.copy_(mask_offset)
        else:
            torch.add(mask_offset, self._bias[sample], out=room.weights_by_group)
        if room.q.dtype == room.weights.dtype:
            room.weights.baddbmm_(room.q, room.k_t, alpha=self._scale)
        else:
            room.weights.add_(torch.bmm(room.q * self._scale, room.k_t))
        torch.softmax(room.weights, dim=-1, out=room.weights)
        room.low_weights = room.weights.to(room.v.dtype)
        torch.bmm(room.low_weights, room.v, out=room.attended)
        torch.mul(room.attended_behind, room.gate, out=room.gated)
        return room

    def attend_backward(self, room: _BackwardRoom) -> Tensor:
        """From room.d_gated, which is written over, to room.joined; returns the gradient of the logits [n, num_heads, N, N] float32."""
        # what they were has become heads, gate and gated
        d_attended, d_joined_gate = room.attended, room.joined_gate
        torch.mul(room.d_gated, room.gate, out=room.attended_behind)
        # d_gated * attended * gate * (1 - gate)
        room.d_gated.mul_(room.gated)
        torch.addcmul(room.d_gated, room.d_gated, room.gate, value=-1.0, out=d_joined_gate)

        torch.bmm(room.low_weights.mT, d_attended, out=room.d_v)
        d_weights = torch.bmm(d_attended, room.v_t, out=room.d_weights).float()
        d_logits = _aten._softmax_backward_data.out(d_weights, room.weights, -1, torch.float32, grad_input=d_weights)
        scaled = d_logits.to(room.q.dtype)
        room.d_q.baddbmm_(scaled, room.k, beta=0, alpha=self._scale)
        room.d_k.baddbmm_(scaled.mT, room.q, beta=0, alpha=self._scale)
        room.joined_qkv.copy_(room.d_heads)
        return d_logits.view(room.weights_by_group.shape)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x, w_in, b_in, w_out, b_out, mask, bias, sizes) -> Tensor:
        ctx.save_for_backward(x, w_in, b_in, w_out, mask, bias)
        ctx.sizes = sizes
        attention = _Attention(x, (w_in, b_in), mask, bias, sizes)
        result, w_out_t = x.new_empty(x.shape, dtype=w_out.dtype), w_out.t()
        for sample, offset, x_rows, result_rows in attention.pieces(x, result):
            room = attention.attend(x_rows.to(w_in.dtype), sample, offset, _Room)
            torch.addmm(b_out, room.gated_rows, w_out_t, out=result_rows)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, b_in, w_out, mask, bias = ctx.saved_tensors
        attention = _Attention(x, (w_in, b_in), mask, bias, ctx.sizes)
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        *d_parameters, d_bias = sums_like(w_in, b_in, w_out, w_out[:, 0], bias if bias is not None else w_in[:0])
        d_w_in, d_b_in, d_w_out, d_b_out = d_parameters
        for sample, offset, x_rows, d_x_rows, d_rows in attention.pieces(x, d_x, d_result):
            x_rows = x_rows.to(w_in.dtype)
            room = attention.attend(x_rows, sample, offset, _BackwardRoom)
            d_b_out.add_(d_rows.sum(0))
            add_product(d_w_out, d_rows.t(), room.gated_rows)
            torch.mm(d_rows, w_out, out=room.d_gated_rows)
            d_logits = attention.attend_backward(room)
            d_b_in.add_(room.joined.sum(0))
            add_product(d_w_in, room.joined.t(), x_rows)
            product_into(d_x_rows, room.joined, w_in)
            if bias is not None:
                d_bias[sample].add_(d_logits.sum(0))
        low = (total.to(w_in.dtype) for total in d_parameters)
        return d_x, *low, None, None if bias is None else d_bias.to(bias.dtype), None
