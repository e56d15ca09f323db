"""Transition: launch functions, autograd function, and the public function."""

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)
from openfold_opt.kernels.triton.partial_sums import sum_partials
from openfold_opt.kernels.triton.transition.kernels import (
    forward_kernel,
    row_gradient_kernel,
    weight_gradient_kernel,
)

MAX_SPLITS = 16
"""Largest number of programs that sum one chunk of the weight gradients over the rows."""


def _constants(x: Tensor, num_hidden: int, *, is_backward: bool) -> Options:
    c = x.shape[-1]
    is_wide = c > 128
    block_rows = 32 if is_wide and is_backward else 64
    if is_backward and x.dtype == torch.float32:
        # The backward kernels keep tiles of rows in shared memory; float32 needs twice the bytes.
        block_rows //= 2
    return {
        "C": c,
        "BLOCK_C": max(MIN_DOT_SIZE, next_power_of_2(c)),
        "BLOCK_ROWS": block_rows,
        # For wide rows, only small chunks of the weights fit into shared memory, double-buffered.
        "BLOCK_HIDDEN": max(
            MIN_DOT_SIZE,
            min(32 if is_wide or (is_backward and c > 64) else 64, next_power_of_2(num_hidden)),
        ),
        "PRECISION": dot_precision(x.dtype),
        "num_warps": 8 if c > 64 else 4,
        "num_stages": 2,
    }


@fused_op
def transition_forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    bias_2: Tensor,
    eps: float,
) -> Tensor:
    """Return y [rows, c].

    x: [rows, c] contiguous; weight_1 and weight_2 have its dtype.
    """
    y = torch.empty_like(x)
    constants = _constants(x, weight_1.shape[0], is_backward=False)
    tensors = (x, norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2, y)
    grid = (divide_up(x.shape[0], constants["BLOCK_ROWS"]),)
    launch(forward_kernel, grid, *tensors, x.shape[0], weight_1.shape[0], eps, **constants)
    return y


@fused_op
def transition_row_gradient(
    dy: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x, norm weight, norm bias and bias_2.

    Returns:
        dx [rows, c]; partial sums [programs, 3, c] float32 for norm weight, norm bias and bias_2.
    """
    dx = torch.empty_like(x)
    constants = _constants(x, weight_1.shape[0], is_backward=True)
    grid = (divide_up(x.shape[0], constants["BLOCK_ROWS"]),)
    partial = torch.empty(*grid, 3, x.shape[1], dtype=torch.float32, device=x.device)
    tensors = (dy, x, norm_weight, norm_bias, weight_1, bias_1, weight_2, dx, partial)
    launch(row_gradient_kernel, grid, *tensors, x.shape[0], weight_1.shape[0], eps, **constants)
    return dx, partial


@fused_op
def transition_weight_gradient(
    dy: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight_1: Tensor,
    bias_1: Tensor,
    weight_2: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of weight_1, weight_2 and bias_1.

    Returns:
        Partial sums, float32: of weight_1 and of transposed weight_2 [splits, num_hidden, c], of
        bias_1 [splits, num_hidden].
    """
    num_hidden = weight_1.shape[0]
    constants = _constants(x, num_hidden, is_backward=True)
    splits = max(1, min(MAX_SPLITS, divide_up(x.shape[0], constants["BLOCK_ROWS"])))
    dweight_1 = torch.empty(splits, *weight_1.shape, dtype=torch.float32, device=x.device)
    dweight_2 = torch.empty_like(dweight_1)
    dbias_1 = torch.empty(splits, num_hidden, dtype=torch.float32, device=x.device)
    tensors = (
        dy,
        x,
        norm_weight,
        norm_bias,
        weight_1,
        bias_1,
        weight_2,
        dweight_1,
        dweight_2,
        dbias_1,
    )
    grid = (divide_up(num_hidden, constants["BLOCK_HIDDEN"]), splits)
    launch(weight_gradient_kernel, grid, *tensors, x.shape[0], num_hidden, eps, **constants)
    return dweight_1, dweight_2, dbias_1


class _Transition(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2, eps):
        weights = (norm_weight, norm_bias, weight_1.to(x.dtype), bias_1, weight_2.to(x.dtype))
        ctx.save_for_backward(x, *weights)
        ctx.eps, ctx.dtypes = eps, (weight_1.dtype, bias_2.dtype)
        return transition_forward(x, *weights, bias_2, eps)

    @staticmethod
    def backward(ctx, dy):
        # saved: x, norm_weight, norm_bias, weight_1, bias_1, weight_2
        dy, dtype = dy.contiguous(), ctx.dtypes[0]
        saved = ctx.saved_tensors
        dx, partial = transition_row_gradient(dy, *saved, ctx.eps)
        dweight_1, dweight_2, dbias_1 = transition_weight_gradient(dy, *saved, ctx.eps)
        dnorm_weight, dnorm_bias, dbias_2 = partial.sum(0)
        small = dnorm_weight.to(saved[1].dtype), dnorm_bias.to(saved[2].dtype)
        return (
            dx,
            *small,
            sum_partials(dweight_1, dtype),
            sum_partials(dbias_1, saved[4].dtype),
            sum_partials(dweight_2, dtype, is_transposed=True),
            dbias_2.to(ctx.dtypes[1]),
            None,
        )


def transition(
    x: Tensor,
    norm: NormWeights,
    first: LinearWeights,
    second: LinearWeights,
) -> Tensor:
    """Compute kernels.reference.transition; its docstring has the shapes.

    Makes one launch forward and seven backward, without the hidden layer in memory.
    """
    rows = x.reshape(-1, x.shape[-1])
    parameters = (norm.weight, norm.bias, *first, *second)
    return _Transition.apply(rows.contiguous(), *parameters, norm.eps).view(x.shape)
