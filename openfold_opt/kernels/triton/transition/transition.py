"""Transition: launch functions, autograd function, and the public function."""

from collections.abc import Sequence

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
from openfold_opt.kernels.triton.partial_sums import join_parts, sum_partials, sum_parts
from openfold_opt.kernels.triton.transition.kernels import (
    forward_kernel,
    row_gradient_kernel,
)

MAX_HIDDEN_ELEMENTS = 2**26
"""Largest number of elements of the hidden layer in memory in the backward pass.

More rows are processed in parts. The hidden layer and its gradient are in memory at the same time.
"""
NORM_ELEMENTS = 4096
"""Elements of the rows that a program of the backward pass normalizes at a time."""


def _constants(x: Tensor, num_hidden: int) -> Options:
    c = x.shape[-1]
    is_wide = c > 128
    return {
        "C": c,
        "BLOCK_C": max(MIN_DOT_SIZE, next_power_of_2(c)),
        "BLOCK_ROWS": 64,
        # For wide rows, only small chunks of the weights fit into shared memory, double-buffered.
        "BLOCK_HIDDEN": max(MIN_DOT_SIZE, min(32 if is_wide else 64, next_power_of_2(num_hidden))),
        "PRECISION": dot_precision(x.dtype),
        "num_warps": 8 if c > 64 else 4,
        "num_stages": 2,
    }


def _backward_constants(x: Tensor, num_hidden: int) -> Options:
    constants = _constants(x, num_hidden)
    if x.dtype == torch.float32:
        # Tiles of rows are in shared memory; float32 needs twice the bytes.
        constants["BLOCK_ROWS"] = 32
        if x.shape[-1] > 64:
            constants["BLOCK_HIDDEN"] = min(32, constants["BLOCK_HIDDEN"])
    norm_rows = max(1, NORM_ELEMENTS // constants["BLOCK_C"])
    return constants | {"NORM_ROWS": min(constants["BLOCK_ROWS"], norm_rows)}


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
    constants = _constants(x, weight_1.shape[0])
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of x, of the biases and of the normalization.

    Returns:
        dx [rows, c]; the factors of the weight gradients in the dtype of x: normalized input
        [rows, c], hidden layer and its gradient [rows, num_hidden]; partial sums
        [programs, num_hidden + 3 * c] float32 for bias_1, norm weight, norm bias and bias_2.
    """
    num_rows, c = x.shape
    num_hidden = weight_1.shape[0]
    dx, u = torch.empty_like(x), torch.empty_like(x)
    h = torch.empty(num_rows, num_hidden, dtype=x.dtype, device=x.device)
    dh = torch.empty_like(h)
    constants = _backward_constants(x, num_hidden)
    grid = (divide_up(num_rows, constants["BLOCK_ROWS"]),)
    partial = torch.empty(*grid, num_hidden + 3 * c, dtype=torch.float32, device=x.device)
    weights = (norm_weight, norm_bias, weight_1, bias_1, weight_2)
    results = (u, h, dh, dx, partial)
    launch(
        row_gradient_kernel, grid, dy, x, *weights, *results, num_rows, num_hidden, eps, **constants
    )
    return dx, u, h, dh, partial


class _Transition(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, norm_weight, norm_bias, weight_1, bias_1, weight_2, bias_2, eps):
        weights = (norm_weight, norm_bias, weight_1.to(x.dtype), bias_1, weight_2.to(x.dtype))
        ctx.save_for_backward(x, *weights)
        ctx.eps, ctx.dtypes = eps, (weight_1.dtype, bias_2.dtype)
        return transition_forward(x, *weights, bias_2, eps)

    @staticmethod
    def backward(ctx, dy):
        x, *weights = ctx.saved_tensors
        norm_weight, norm_bias, weight_1, bias_1, _ = weights
        num_hidden, c = weight_1.shape
        num_rows = max(1, MAX_HIDDEN_ELEMENTS // num_hidden)
        rows = zip(dy.contiguous().split(num_rows), x.split(num_rows), strict=True)
        parts = [_part_of_gradients(*part, weights, ctx.eps) for part in rows]
        dx, dweight_1, dweight_2, partial = zip(*parts, strict=True)
        sums = sum_partials(join_parts(partial), torch.float32).split((num_hidden, c, c, c))
        dbias_1, dnorm_weight, dnorm_bias, dbias_2 = sums
        weight_dtype, bias_2_dtype = ctx.dtypes
        return (
            join_parts(dx),
            dnorm_weight.to(norm_weight.dtype),
            dnorm_bias.to(norm_bias.dtype),
            sum_parts(dweight_1, weight_dtype),
            dbias_1.to(bias_1.dtype),
            sum_parts(dweight_2, weight_dtype),
            dbias_2.to(bias_2_dtype),
            None,
        )


def _part_of_gradients(
    dy: Tensor, x: Tensor, weights: Sequence[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dx, dweight_1, dweight_2 and the partial sums of some rows.

    The hidden layer is freed here, before that of the next rows is computed.
    """
    dx, u, h, dh, partial = transition_row_gradient(dy, x, *weights, eps)
    return dx, dh.t() @ u, dy.t() @ h, partial


def transition(
    x: Tensor,
    norm: NormWeights,
    first: LinearWeights,
    second: LinearWeights,
) -> Tensor:
    """Compute kernels.reference.transition; its docstring has the shapes.

    Makes one launch forward, without the hidden layer in memory. The backward pass makes one, two
    matrix products for the weights, and sums.
    """
    rows = x.reshape(-1, x.shape[-1])
    parameters = (norm.weight, norm.bias, *first, *second)
    return _Transition.apply(rows.contiguous(), *parameters, norm.eps).view(x.shape)
