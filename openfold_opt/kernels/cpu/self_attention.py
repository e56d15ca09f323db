"""Gated self-attention by pieces of a few groups, from normalised input to update: projections, logits and weights never exist as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.again import again_of
from openfold_opt.kernels.cpu.layer_norm import NormAgain
from openfold_opt.kernels.cpu.loops import call
from openfold_opt.kernels.cpu.pieces import Scratch, add_product, piece_length, product_into, sums_like

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
    """kernels/reference/self_attention.py, which has shapes and meaning; keeps its inputs only and computes the rest again.

    An x that comes from a normalisation is computed again too.
    """
    arrived = None if bias is None else bias().expand(len(x), num_heads, x.shape[2], x.shape[2])
    return _SelfAttention.apply(x, *projection, *output, mask, arrived, (num_heads, mask_inf))


class _Room:
    """Scratch memory for a piece of n groups, and every view of it that a product looks through: making a view takes as long as filling 8 KiB.

    n groups of num_heads heads make n * num_heads matrix products.
    """

    def __init__(self, sizes: tuple[int, int, int, int], scratch: Scratch) -> None:
        """sizes: n, N, num_heads and c of a head"""
        n, length, num_heads, c = self.sizes = sizes
        self.joined = scratch.take("joined", n * length, 4 * num_heads * c)
        """Projections q, k, v and gate, later their gradient"""
        self.heads = scratch.take("heads", 3, n * num_heads, length, c)
        self.q, self.k, self.v = self.heads
        self.k_t, self.v_t = self.k.mT, self.v.mT
        self.gate = scratch.take("gate", n * length, num_heads * c)
        """After its sigmoid"""
        self.weights = scratch.take("weights", n * num_heads, length, length, dtype=torch.float32)
        self.attended = scratch.take("attended", n * num_heads, length, c)
        """Later its gradient"""
        self.gated = scratch.take("gated", n * length, num_heads * c)
        """Which are projected to the output"""


class _BackwardRoom(_Room):
    """With what only the backward pass needs."""

    def __init__(self, sizes: tuple[int, int, int, int], scratch: Scratch) -> None:
        super().__init__(sizes, scratch)
        self.d_gated = scratch.take("d_gated", *self.gated.shape)
        self.d_heads = scratch.take("d_heads", *self.heads.shape)
        self.d_q, self.d_k, self.d_v = self.d_heads
        self.d_weights = scratch.take("d_weights", *self.weights.shape)


class _Attention:
    """What both passes do with a piece. All intermediate results lie in scratch memory, and each is passed over as rarely as can be."""

    def __init__(self, x: Tensor, projection: tuple[Tensor, Tensor], mask: Tensor, bias: Tensor | None, sizes: tuple[int, float]) -> None:
        num_heads, mask_inf = sizes
        w_in, b_in = projection
        length, c = x.shape[2], len(w_in) // (4 * num_heads)
        self._w_in_t, self._offset = w_in.t(), b_in
        self._mask_offset = (mask_inf * (mask.float() - 1.0)).expand(x.shape[:3]).contiguous()
        self._bias = None if bias is None else bias.float().contiguous()
        self._scale, self._scratch = 1.0 / math.sqrt(c), Scratch(w_in)
        self._length = piece_length(length * max(num_heads * length * _FLOAT32_BYTES, len(w_in) * w_in.element_size()))
        self._group_sizes, self._rooms = (length, num_heads, c), {}

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
        """Sample, mask offset of some groups, and their rows of each tensor [batch, groups, N, c]: [n * N, c]."""
        for sample, mask_offset in enumerate(self._mask_offset):
            parts = zip(*(x[sample].split(self._length) for x in tensors))
            for offset, part in zip(mask_offset.split(self._length), parts):
                yield sample, offset, *(x.flatten(0, 1).contiguous() for x in part)

    def normalised(self, rows: Tensor, norm_again: NormAgain | None) -> Tensor:
        """What attend wants, of rows [n * N, c_in] of the input, which is that of the normalisation if it is done again."""
        if norm_again is not None:
            rows, unnormalised = self._scratch.take("normalised", *rows.shape, dtype=rows.dtype), rows
            norm_again.normalise(unnormalised, rows)
        return rows.to(self._w_in_t.dtype)

    def attend(self, x: Tensor, sample: int, mask_offset: Tensor, room_type: type[AnyRoom]) -> AnyRoom:
        """Fills a room up to what is projected to the output. x: [n * N, c_in] in the dtype of the weights"""
        n, (length, num_heads, _) = len(mask_offset), self._group_sizes
        if n not in self._rooms:
            self._rooms[n] = room_type((n, *self._group_sizes), self._scratch)
        room = self._rooms[n]
        torch.mm(x, self._w_in_t, out=room.joined)
        call("split_heads", room.joined, self._offset, room.heads, room.gate, *room.sizes)
        if room.q.dtype == room.weights.dtype:
            torch.bmm(room.q, room.k_t, out=room.weights)
        else:
            room.weights.copy_(torch.bmm(room.q, room.k_t))
        bias = None if self._bias is None else self._bias[sample]
        call("softmax", room.weights, mask_offset, bias, self._scale, n, num_heads, length)
        room.low_weights = room.weights.to(room.v.dtype)
        torch.bmm(room.low_weights, room.v, out=room.attended)
        call("gate_heads", room.attended, room.gate, room.gated, *room.sizes)
        return room

    def attend_backward(self, room: _BackwardRoom, d_bias: Tensor | None, d_offset: Tensor) -> None:
        """From room.d_gated to room.joined; d_bias [num_heads, N, N] and d_offset [4 * num_heads * c], float32, grow."""
        n, length, num_heads, _ = room.sizes
        call("gate_heads_backward", room.attended, room.gate, room.d_gated, room.joined, *room.sizes)
        # what was attended has become its gradient
        torch.bmm(room.low_weights.mT, room.attended, out=room.d_v)
        d_weights = torch.bmm(room.attended, room.v_t, out=room.d_weights).float()
        call("softmax_backward", d_weights, room.weights, d_bias, n, num_heads, length)
        d_logits = d_weights.to(room.q.dtype)
        room.d_q.baddbmm_(d_logits, room.k, beta=0, alpha=self._scale)
        room.d_k.baddbmm_(d_logits.mT, room.q, beta=0, alpha=self._scale)
        call("merge_heads", room.d_heads, room.joined, d_offset, *room.sizes)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x, w_in, b_in, w_out, b_out, mask, bias, sizes) -> Tensor:
        ctx.norm_again = again_of(NormAgain, (x,))
        ctx.save_for_backward(x if ctx.norm_again is None else None, w_in, b_in, w_out, mask, bias)
        ctx.sizes = sizes
        attention = _Attention(x, (w_in, b_in), mask, bias, sizes)
        result, w_out_t = x.new_empty(x.shape, dtype=w_out.dtype), w_out.t()
        for sample, offset, x_rows, result_rows in attention.pieces(x, result):
            room = attention.attend(x_rows.to(w_in.dtype), sample, offset, _Room)
            torch.mm(room.gated, w_out_t, out=result_rows)
            call("add_to_rows", result_rows, b_out, *result_rows.shape)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, b_in, w_out, mask, bias = ctx.saved_tensors
        x = x if ctx.norm_again is None else ctx.norm_again.input
        attention = _Attention(x, (w_in, b_in), mask, bias, ctx.sizes)
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        *d_parameters, d_bias = sums_like(w_in, b_in, w_out, w_out[:, 0], bias if bias is not None else w_in[:0])
        d_w_in, d_b_in, d_w_out, d_b_out = d_parameters
        for sample, offset, x_rows, d_x_rows, d_rows in attention.pieces(x, d_x, d_result):
            x_rows = attention.normalised(x_rows, ctx.norm_again)
            room = attention.attend(x_rows, sample, offset, _BackwardRoom)
            call("add_column_sums", d_rows, d_b_out, *d_rows.shape)
            add_product(d_w_out, d_rows.t(), room.gated)
            torch.mm(d_rows, w_out, out=room.d_gated)
            attention.attend_backward(room, None if bias is None else d_bias[sample], d_b_in)
            add_product(d_w_in, room.joined.t(), x_rows)
            product_into(d_x_rows, room.joined, w_in)
        low = (total.to(w_in.dtype) for total in d_parameters)
        return d_x, *low, None, None if bias is None else d_bias.to(bias.dtype), None
