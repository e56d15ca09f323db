"""Transition by pieces of rows: the widened channels never leave the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import add_product, pieces, sums_like


def transition(
    x: Tensor, norm: tuple[Tensor, Tensor], first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], *, eps: float
) -> Tensor:
    """kernels/reference/transition.py, which has shapes and meaning; keeps its inputs only."""
    return _Transition.apply(x, *norm, *first, *second, eps)


class _Transition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, gamma: Tensor, beta: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, gamma, beta, w1, b1, w2)
        ctx.eps = eps
        rows = x.reshape(-1, x.shape[-1])
        result = torch.empty_like(rows)
        for piece in _pieces_of(rows, w1):
            normalised, _, _ = normalise(rows[piece], (gamma, beta), eps)
            hidden = torch.addmm(b1, normalised.to(w1.dtype), w1.t()).relu_()
            torch.add(rows[piece], torch.addmm(b2, hidden, w2.t()), out=result[piece])
        return result.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, w1, b1, w2 = ctx.saved_tensors
        rows, d_rows = x.reshape(-1, x.shape[-1]), d_result.reshape(-1, x.shape[-1])
        d_x = torch.empty_like(rows)
        d_gamma, d_beta, d_w1, d_b1, d_w2 = sums_like(gamma, beta, w1, w1[:, 0], w2)
        for piece in _pieces_of(rows, w1):
            normalised, *statistics = normalise(rows[piece], (gamma, beta), ctx.eps)
            normalised = normalised.to(w1.dtype)
            hidden = torch.addmm(b1, normalised, w1.t()).relu_()
            d_piece = d_rows[piece].to(w2.dtype)
            add_product(d_w2, d_piece.t(), hidden)
            d_hidden = torch.ops.aten.threshold_backward(torch.mm(d_piece, w2), hidden, 0)
            add_product(d_w1, d_hidden.t(), normalised)
            d_b1.add_(d_hidden.sum(0))
            d_normalised = torch.mm(d_hidden, w1)
            inner = normalise_backward(d_normalised, rows[piece], (gamma, beta), statistics, (d_gamma, d_beta))
            torch.add(d_rows[piece], inner, out=d_x[piece])
        low = (total.to(w1.dtype) for total in (d_w1, d_b1, d_w2, d_rows.sum(0)))
        return d_x.view(x.shape), d_gamma, d_beta, *low, None


def _pieces_of(rows: Tensor, w1: Tensor) -> Iterator[slice]:
    return pieces(rows.shape[0], w1.shape[0] * w1.element_size())
