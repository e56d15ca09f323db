"""Gated self-attention by pieces of a few groups, from normalised input to update: projections, logits and weights never leave the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.pieces import add_product, pieces, sums_like

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
    bias: Tensor | None = None,
) -> Tensor:
    """kernels/reference/self_attention.py, which has shapes and meaning; keeps its inputs only and computes the rest again."""
    return _SelfAttention.apply(x, *projection, *output, mask, bias, (num_heads, mask_inf))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    """Some groups of one sample on their way; n groups of num_heads heads make n * num_heads matrix products."""

    q: Tensor
    """[n * num_heads, N, c], as are k and v"""
    k: Tensor
    v: Tensor
    weights: Tensor
    """[n * num_heads, N, N] float32"""
    attended: Tensor
    """[n, N, num_heads, c]"""
    gate: Tensor
    """[n, N, num_heads, c] after its sigmoid"""

    def gated(self) -> Tensor:
        """[n * N, num_heads * c]"""
        return (self.attended * self.gate).flatten(0, 1).flatten(1)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x, w_in, b_in, w_out, b_out, mask, bias, sizes) -> Tensor:
        ctx.save_for_backward(x, w_in, b_in, w_out, mask, bias)
        ctx.sizes = sizes
        num_heads, mask_inf = sizes
        result = x.new_empty(x.shape, dtype=w_out.dtype)
        for place in _places(x, w_in, num_heads):
            piece = _attend(_project(x[place], w_in, b_in), _offset(mask, bias, place, mask_inf), num_heads)
            torch.addmm(b_out, piece.gated(), w_out.t(), out=result[place].flatten(0, 1))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, w_in, b_in, w_out, mask, bias = ctx.saved_tensors
        num_heads, mask_inf = ctx.sizes
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        *d_parameters, d_bias = sums_like(w_in, b_in, w_out, w_out[:, 0], bias if bias is not None else w_in[:0])
        d_w_in, d_b_in, d_w_out, d_b_out = d_parameters
        for place in _places(x, w_in, num_heads):
            piece = _attend(_project(x[place], w_in, b_in), _offset(mask, bias, place, mask_inf), num_heads)
            d_piece = d_result[place].reshape(-1, d_result.shape[-1])
            d_b_out.add_(d_piece.sum(0))
            add_product(d_w_out, d_piece.t(), piece.gated())
            d_projected, d_logits = _attend_backward(piece, torch.mm(d_piece, w_out).view(piece.gate.shape))
            d_b_in.add_(d_projected.sum(0))
            add_product(d_w_in, d_projected.t(), x[place].reshape(-1, x.shape[-1]).to(w_in.dtype))
            d_x[place] = torch.mm(d_projected, w_in).view(d_x[place].shape)
            if bias is not None:
                d_bias[place[0]].add_(d_logits.unflatten(0, (-1, num_heads)).sum(0))
        low = (total.to(w_in.dtype) for total in d_parameters)
        return d_x, *low, None, None if bias is None else d_bias.to(bias.dtype), None


def _places(x: Tensor, w_in: Tensor, num_heads: int) -> Iterator[tuple[int, slice]]:
    """Sample and groups of every piece."""
    batch, num_groups, length, _ = x.shape
    largest = max(num_heads * length * length * _FLOAT32_BYTES, length * w_in.shape[0] * w_in.element_size())
    for sample in range(batch):
        for groups in pieces(num_groups, largest):
            yield sample, groups


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[n, N, c] -> [n, N, 4 * num_heads * c_head]"""
    return torch.addmm(bias, x.reshape(-1, x.shape[-1]).to(weight.dtype), weight.t()).view(*x.shape[:-1], -1)


def _offset(mask: Tensor, bias: Tensor | None, place: tuple[int, slice], mask_inf: float) -> Tensor:
    """What is added to the logits: [n, 1 or num_heads, 1 or N, N] float32."""
    offset = (mask_inf * (mask[place].float() - 1.0))[:, None, None, :]
    return offset if bias is None else offset + bias[place[0]].float()


def _attend(projected: Tensor, offset: Tensor, num_heads: int) -> _Piece:
    joined = projected.unflatten(-1, (4, num_heads, -1))
    q, k, v = joined[..., :3, :, :].permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2)
    length, c = q.shape[1:]
    logits = offset.expand(len(projected), num_heads, length, length).reshape(-1, length, length)
    if q.dtype == torch.float32:
        logits = torch.baddbmm(logits, q, k.transpose(1, 2), alpha=1.0 / math.sqrt(c))
    else:
        logits = logits + torch.bmm(q * (1.0 / math.sqrt(c)), k.transpose(1, 2))
    weights = torch.softmax(logits, dim=-1)
    attended = torch.bmm(weights.to(v.dtype), v).unflatten(0, (-1, num_heads)).transpose(1, 2)
    return _Piece(q=q, k=k, v=v, weights=weights, attended=attended, gate=torch.sigmoid(joined[..., 3, :, :]))


def _attend_backward(piece: _Piece, d_gated: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the projections [n * N, 4 * num_heads * c] and of the logits [n * num_heads, N, N] float32."""
    n, length, num_heads, c = piece.gate.shape
    d_attended = (d_gated * piece.gate).transpose(1, 2).flatten(0, 1)
    d_joined = d_gated.new_empty(n, length, 4, num_heads, c)
    d_joined[..., 3, :, :] = _aten.sigmoid_backward(d_gated * piece.attended, piece.gate)

    d_weights = torch.bmm(d_attended, piece.v.transpose(1, 2))
    d_logits = _aten._softmax_backward_data(d_weights.float(), piece.weights, -1, torch.float32)
    scaled = (d_logits * (1.0 / math.sqrt(c))).to(piece.q.dtype)
    d_heads = piece.q.new_empty(3, *piece.q.shape)
    torch.bmm(scaled, piece.k, out=d_heads[0])
    torch.bmm(scaled.transpose(1, 2), piece.q, out=d_heads[1])
    torch.bmm(piece.weights.to(d_attended.dtype).transpose(1, 2), d_attended, out=d_heads[2])
    d_joined[..., :3, :, :].copy_(d_heads.unflatten(1, (n, num_heads)).permute(1, 3, 0, 2, 4))
    return d_joined.view(n * length, 4 * num_heads * c), d_logits
