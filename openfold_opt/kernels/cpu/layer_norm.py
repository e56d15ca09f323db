"""Layer normalisation that keeps a bfloat16 input as it came, in place of a float32 copy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

Parameters = tuple[Tensor, Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """kernels/reference/layer_norm.py, which has shapes and meaning."""
    return _LayerNorm.apply(x, weight, bias, eps)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        result, *statistics = normalise(x, (weight, bias), eps)
        ctx.save_for_backward(x, weight, bias, *statistics)
        return result.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *statistics = ctx.saved_tensors
        d_parameters = torch.zeros_like(weight), torch.zeros_like(bias)
        return normalise_backward(d_result, x, (weight, bias), statistics, d_parameters), *d_parameters, None


def normalise(x: Tensor, parameters: Parameters, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised rows in float32, their means and reciprocal standard deviations."""
    return torch.native_layer_norm(x.float(), parameters[0].shape, *parameters, eps)


def normalise_backward(d_y: Tensor, x: Tensor, parameters: Parameters, statistics: list[Tensor], d_parameters: Parameters) -> Tensor:
    """Gradient of x in its dtype; those of weight and bias are added to d_parameters."""
    d_x, *added = torch.ops.aten.native_layer_norm_backward(
        d_y.float(), x.float(), parameters[0].shape, *statistics, *parameters, (True,) * 3
    )
    for total, part in zip(d_parameters, added):
        total.add_(part)
    return d_x.to(x.dtype)
