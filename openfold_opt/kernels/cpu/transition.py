"""Transition in tiles of rows: the hidden layer is never materialized as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.layer_norm import as_rows, normalize, normalize_backward
from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.tiles import Scratch, add_product, sums_like, tile_length
from openfold_opt.kernels.interface import LinearWeights, NormWeights


def transition(
    x: Tensor,
    norm: NormWeights,
    first: LinearWeights,
    second: LinearWeights,
) -> Tensor:
    """Compute kernels.reference.transition; its docstring has the shapes.

    Saves only its inputs for the backward pass.
    """
    return _Transition.apply(x, norm.weight, norm.bias, *first, *second, norm.eps)


class _Transition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, gamma, beta, w1, b1, w2)
        ctx.eps = eps
        rows = as_rows(x)
        result, scratch, w1_t, w2_t = torch.empty_like(rows), Scratch(w1), w1.t(), w2.t()
        for tile, result_tile in _tiles_of(w1, rows, result):
            hidden = _hidden(tile, ((gamma, beta), eps), (w1_t, b1), scratch)[2]
            update = torch.mm(hidden, w2_t, out=scratch.take("update", *tile.shape))
            call("add_residual", update, b2, None, tile, result_tile, *tile.shape)
        return result.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, w1, b1, w2 = ctx.saved_tensors
        rows, d_rows = as_rows(x), as_rows(d_result)
        d_x, scratch, w1_t = torch.empty_like(rows), Scratch(w1), w1.t()
        d_gamma, d_beta, d_w1, d_b1, d_w2 = sums_like(gamma, beta, w1, b1, w2)
        for tile, d_tile, d_x_tile in _tiles_of(w1, rows, d_rows, d_x):
            normalized, statistics, hidden = _hidden(
                tile, ((gamma, beta), ctx.eps), (w1_t, b1), scratch
            )
            d_update = d_tile.to(w2.dtype)
            add_product(d_w2, d_update.t(), hidden)
            d_hidden = torch.mm(d_update, w2, out=scratch.take("d_hidden", *hidden.shape))
            call("relu_backward", d_hidden, hidden, d_b1, *hidden.shape)
            add_product(d_w1, d_hidden.t(), normalized)
            d_normalized = torch.mm(d_hidden, w1, out=scratch.take("d_normalized", *tile.shape))
            normalize_backward(
                d_normalized, tile, statistics, (gamma, d_gamma, d_beta), d_x_tile, added=d_tile
            )
        low = (total.to(w1.dtype) for total in (d_w1, d_b1, d_w2, d_rows.sum(0)))
        return d_x.view(x.shape), d_gamma, d_beta, *low, None


def _hidden(
    rows: Tensor,
    norm: tuple[tuple[Tensor, Tensor], float],
    first: tuple[Tensor, Tensor],
    scratch: Scratch,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalized rows in the dtype of the weights, their statistics, and the hidden layer.

    norm: weight and bias of the normalization, and its eps; first: transposed weight, and bias.
    """
    weight_t, bias = first
    normalized = scratch.take("normalized", *rows.shape)
    statistics = normalize(rows, *norm, normalized)
    hidden = torch.mm(
        normalized, weight_t, out=scratch.take("hidden", len(rows), weight_t.shape[1])
    )
    call("relu", hidden, bias, *hidden.shape)
    return normalized, statistics, hidden


def _tiles_of(w1: Tensor, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(x.split(tile_length(w1.shape[0] * w1.element_size())) for x in rows))
