"""Layer normalization. Only its input is saved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from openfold_opt.kernels.cpu.native_functions import call
from openfold_opt.kernels.cpu.recomputation import Recomputable
from openfold_opt.kernels.cpu.tiles import sums_like

Parameters = tuple[Tensor, Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Compute kernels.reference.layer_norm; its docstring has the shapes."""
    return _LayerNorm.apply(x, weight, bias, eps)


class RecomputableNorm(Recomputable):
    """The saved input of a normalization, from which tiles of the result can be recomputed."""

    def __init__(self, node: FunctionCtx, results: Sequence[Tensor], eps: float) -> None:
        super().__init__(node, results)
        self.eps = eps

    @property
    def input(self) -> Tensor:
        """Return the input [..., c], with any strides."""
        return self.saved()[0]

    def normalize(self, rows: Tensor, result: Tensor) -> None:
        """Write rows of the input [n, c], contiguous, normalized to result [n, c]."""
        normalize(rows, self.saved()[1:3], self.eps, result)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        statistics = normalize(as_rows(x), (gamma, beta), eps, as_rows(result))
        ctx.save_for_backward(x, gamma, beta, statistics)
        ctx.recompute = RecomputableNorm(ctx, (result,), eps)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, beta, statistics = ctx.recompute.release()
        d_gamma, d_beta = sums_like(gamma, beta)
        d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        normalize_backward(
            as_rows(d_result), as_rows(x), statistics, (gamma, d_gamma, d_beta), as_rows(d_x)
        )
        return d_x, d_gamma, d_beta, None


def as_rows(x: Tensor) -> Tensor:
    """Return x [..., c] as contiguous rows [n, c]; copies x if it is not contiguous."""
    return x.reshape(-1, x.shape[-1]).contiguous()


def normalize(x: Tensor, parameters: Parameters, eps: float, result: Tensor) -> Tensor:
    """Write the normalized rows of x [n, c] to result [n, c].

    Returns:
        Statistics [n, 2] float32 for normalize_backward.
    """
    statistics = x.new_empty(len(x), 2, dtype=torch.float32)
    call("norm_rows", x, *parameters, result, statistics, eps, *x.shape)
    return statistics


def normalize_backward(
    d_y: Tensor,
    x: Tensor,
    statistics: Tensor,
    gamma_and_sums: tuple[Tensor, Tensor, Tensor],
    d_x: Tensor,
    *,
    added: Tensor | None = None,
) -> None:
    """Write the gradient of x, plus `added` if given, to d_x; all [n, c].

    gamma_and_sums: weight of the normalization, and the accumulated gradients of its weight and
        bias, [c] float32 each, to which those of these rows are added.
    """
    call("norm_rows_backward", d_y, x, statistics, *gamma_and_sums, added, d_x, *x.shape)
