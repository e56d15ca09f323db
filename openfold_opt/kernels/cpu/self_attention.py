"""Gated self-attention by pieces of a few groups, from normalised input to update: projections, logits and weights never leave the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.pieces import Scratch, add_product, pieces, product_into, sums_like

_aten = torch.ops.aten
_FLOAT32_BYTES = 4


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


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """Some groups of one sample on their way; n groups of num_heads heads make n * num_heads matrix products."""

    x: Tensor
    """[n * N, c_in]"""
    heads: Tensor
    """q, k and v: [3, n * num_heads, N, c]"""
    gate: Tensor
    """[n, N, num_heads, c] after its sigmoid"""
    weights: Tensor
    """[n * num_heads, N, N] float32"""
    low_weights: Tensor
    """The same in the dtype of v"""
    gated: Tensor
    """[n, N, num_heads, c], which is projected to the output"""


class _Attention:
    """What both passes do with a piece. All intermediate results lie in scratch memory, and each is passed over as rarely as can be."""

    def __init__(self, x: Tensor, projection: tuple[Tensor, Tensor], mask: Tensor, bias: Tensor | None, sizes: tuple[int, float]) -> None:
        self.num_heads, mask_inf = sizes
        self._x, self._bias = x, bias
        self._w_in, self._b_in = projection
        self._c = len(self._w_in) // (4 * self.num_heads)
        self._scale = 1.0 / math.sqrt(self._c)
        self._mask_offset = mask_inf * (mask.float() - 1.0)
        self._scratch = Scratch(self._w_in)

    def places(self) -> Iterator[tuple[int, slice]]:
        """Sample and groups of every piece."""
        batch, num_groups, length, _ = self._x.shape
        largest = max(self.num_heads * length * length * _FLOAT32_BYTES, length * self._w_in.shape[0] * self._w_in.element_size())
        for sample in range(batch):
            for groups in pieces(num_groups, largest):
                yield sample, groups

    def attend(self, place: tuple[int, slice]) -> _Piece:
        take, dtype = self._scratch.take, self._w_in.dtype
        x = self._x[place]
        n, length = x.shape[:2]
        x = x.reshape(n * length, -1).to(dtype)
        joined = torch.mm(x, self._w_in.t(), out=take("joined", n * length, len(self._w_in))).view(n, length, 4, self.num_heads, self._c)
        offset = self._b_in.view(4, self.num_heads, self._c)
        # the way to heads in front passes over everything anyway, so the bias is added there
        heads = take("heads", 3, n, self.num_heads, length, self._c)
        torch.add(joined[:, :, :3].permute(2, 0, 3, 1, 4), offset[:3, None, :, None], out=heads)
        gate = torch.add(joined[:, :, 3], offset[3], out=take("gate", n, length, self.num_heads, self._c)).sigmoid_()
        heads = heads.flatten(1, 2)
        weights = self._weights(heads, place)
        low_weights = weights.to(dtype)
        attended = torch.bmm(low_weights, heads[2], out=take("attended", *heads.shape[1:]))
        gated = torch.mul(self._behind(attended), gate, out=take("gated", *gate.shape))
        return _Piece(x=x, heads=heads, gate=gate, weights=weights, low_weights=low_weights, gated=gated)

    def _weights(self, heads: Tensor, place: tuple[int, slice]) -> Tensor:
        _, matrices, length, _ = heads.shape
        logits = self._scratch.take("weights", matrices, length, length, dtype=torch.float32)
        by_group = logits.unflatten(0, (-1, self.num_heads))
        mask_offset = self._mask_offset[place][:, None, None, :]
        if self._bias is None:
            by_group.copy_(mask_offset.expand_as(by_group))
        else:
            torch.add(mask_offset, self._bias[place[0]].float(), out=by_group)
        q, k = heads[0], heads[1].transpose(1, 2)
        if q.dtype == logits.dtype:
            logits.baddbmm_(q, k, alpha=self._scale)
        else:
            logits.add_(torch.bmm(q * self._scale, k))
        return torch.softmax(logits, dim=-1, out=logits)

    def attend_backward(self, piece: _Piece, d_gated: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the joined projections [n * N, 4 * num_heads * c] and of the logits [n, num_heads, N, N] float32.

        d_gated: [n, N, num_heads, c], written over.
        """
        take, dtype = self._scratch.take, d_gated.dtype
        q, k, v = piece.heads
        # what they were has become heads, gate and gated
        d_attended = torch.mul(self._in_front(d_gated), self._in_front(piece.gate), out=take("attended", *self._in_front(d_gated).shape)).flatten(0, 1)
        d_joined = take("joined", *d_gated.shape[:2], 4, *d_gated.shape[2:])
        # d_gated * attended * gate * (1 - gate)
        d_gated.mul_(piece.gated)
        torch.addcmul(d_gated, d_gated, piece.gate, value=-1.0, out=d_joined[:, :, 3])

        d_heads = take("d_heads", *piece.heads.shape)
        torch.bmm(piece.low_weights.transpose(1, 2), d_attended, out=d_heads[2])
        d_weights = torch.bmm(d_attended, v.transpose(1, 2), out=take("d_weights", *piece.weights.shape)).float()
        d_logits = _aten._softmax_backward_data.out(d_weights, piece.weights, -1, torch.float32, grad_input=d_weights)
        scaled = d_logits.to(dtype)
        d_heads[0].baddbmm_(scaled, k, beta=0, alpha=self._scale)
        d_heads[1].baddbmm_(scaled.transpose(1, 2), q, beta=0, alpha=self._scale)
        d_joined[:, :, :3].copy_(d_heads.unflatten(1, (-1, self.num_heads)).permute(1, 3, 0, 2, 4))
        return d_joined.flatten(0, 1).flatten(1), d_logits.unflatten(0, (-1, self.num_heads))

    def _behind(self, x: Tensor) -> Tensor:
        """[n * num_heads, N, c] -> [n, N, num_heads, c], no copy"""
        return x.unflatten(0, (-1, self.num_heads)).transpose(1, 2)

    @staticmethod
    def _in_front(x: Tensor) -> Tensor:
        """[n, N, num_heads, c] -> [n, num_heads, N, c], no copy"""
        return x.transpose(1, 2)

    def take(self, name: str, *shape: int) -> Tensor:
        """Scratch memory in the dtype of the weights."""
        return self._scratch.take(name, *shape)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x, w_in, b_in, w_out, b_out, mask, bias, sizes) -> Tensor:
        ctx.save_for_backward(x, w_in, b_in, w_out, mask, bias)
        ctx.sizes = sizes
        attention = _Attention(x, (w_in, b_in), mask, bias, sizes)
        result = x.new_empty(x.shape, dtype=w_out.dtype)
        for place in attention.places():
            gated = attention.attend(place).gated.flatten(0, 1).flatten(1)
            torch.addmm(b_out, gated, w_out.t(), out=result[place].flatten(0, 1))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, b_in, w_out, mask, bias = ctx.saved_tensors
        attention = _Attention(x, (w_in, b_in), mask, bias, ctx.sizes)
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        *d_parameters, d_bias = sums_like(w_in, b_in, w_out, w_out[:, 0], bias if bias is not None else w_in[:0])
        d_w_in, d_b_in, d_w_out, d_b_out = d_parameters
        for place in attention.places():
            piece = attention.attend(place)
            d_piece = d_result[place].reshape(-1, d_result.shape[-1])
            d_b_out.add_(d_piece.sum(0))
            add_product(d_w_out, d_piece.t(), piece.gated.flatten(0, 1).flatten(1))
            d_gated = torch.mm(d_piece, w_out, out=attention.take("d_gated", len(d_piece), w_out.shape[1]))
            d_joined, d_logits = attention.attend_backward(piece, d_gated.view(piece.gate.shape))
            d_b_in.add_(d_joined.sum(0))
            add_product(d_w_in, d_joined.t(), piece.x)
            product_into(d_x[place].flatten(0, 1), d_joined, w_in)
            if bias is not None:
                d_bias[place[0]].add_(d_logits.sum(0))
        low = (total.to(w_in.dtype) for total in d_parameters)
        return d_x, *low, None, None if bias is None else d_bias.to(bias.dtype), None
