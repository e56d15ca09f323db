"""Transition by pieces of rows: the widened channels never leave the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import normalise, normalise_backward
from openfold_opt.kernels.cpu.pieces import add_product, piece_length, sums_like

_aten = torch.ops.aten


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
        result, w1_t, w2_t = torch.empty_like(rows), w1.t(), w2.t()
        for some, some_result in _pieces_of(w1, rows, result):
            normalised, _, _ = normalise(some, (gamma, beta), eps)
            hidden = torch.addmm(b1, normalised.to(w1.dtype), w1_t).relu_()
            torch.add(some, torch.addmm(b2, hidden, w2_t), out=some_result)
        return result.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, w1, b1, w2 = ctx.saved_tensors
        rows, d_rows = x.reshape(-1, x.shape[-1]), d_result.reshape(-1, x.shape[-1])
        d_x, w1_t = torch.empty_like(rows), w1.t()
        d_gamma, d_beta, d_w1, d_b1, d_w2 = sums_like(gamma, beta, w1, w1[:, 0], w2)
        for some, d_some, d_x_some in _pieces_of(w1, rows, d_rows, d_x):
            normalised, *statistics = normalise(some, (gamma, beta), ctx.eps)
            normalised = normalised.to(w1.dtype)
            hidden = torch.addmm(b1, normalised, w1_t).relu_()
            d_piece = d_some.to(w2.dtype)
            add_product(d_w2, d_piece.t(), hidden)
            d_hidden = torch.mm(d_piece, w2)
            _aten.threshold_backward.grad_input(d_hidden, hidden, 0, grad_input=d_hidden)
            add_product(d_w1, d_hidden.t(), normalised)
            d_b1.add_(d_hidden.sum(0))
            d_normalised = torch.mm(d_hidden, w1)
            inner = normalise_backward(d_normalised, some, (gamma, beta), statistics, (d_gamma, d_beta))
            torch.add(d_some, inner, out=d_x_some)
        low = (total.to(w1.dtype) for total in (d_w1, d_b1, d_w2, d_rows.sum(0)))
        return d_x.view(x.shape), d_gamma, d_beta, *low, None


def _pieces_of(w1: Tensor, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(x.split(piece_length(w1.shape[0] * w1.element_size())) for x in rows))
