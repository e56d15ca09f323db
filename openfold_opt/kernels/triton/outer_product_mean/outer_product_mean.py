"""Outer product mean: launch functions, autograd function, and the public function."""

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton.launching import (
    Options,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)
from openfold_opt.kernels.triton.outer_product_mean.kernels import (
    forward_kernel,
    side_gradient_kernel,
    weight_gradient_kernel,
)
from openfold_opt.kernels.triton.partial_sums import sum_partials
from openfold_opt.kernels.triton.scaled_gradient import (
    outer_product_mean_scaled_gradient,
)

MAX_SPLITS = 16
"""Largest number of programs that share the sum over residue pairs of a weight gradient tile."""


def _constants(a: Tensor, c_z: int) -> Options:
    c = a.shape[-1]
    block_c = next_power_of_2(c)
    # Float32 needs twice the bytes of bfloat16, so its tiles are half as long in every dimension.
    divisor = 2 if a.dtype == torch.float32 else 1
    # Every dim of a matrix product is at least 16: pairs of residues, pairs of channels, sequences,
    # outputs. With more than 32 channels, BLOCK_J and SHARE_C are smaller, so that the tiles are
    # not larger than with 32 channels.
    return {
        "C": c,
        "BLOCK_C": block_c,
        "SHARE_C": max(min(4, block_c, 128 // block_c), 16 // block_c),
        "BLOCK_I": 16 // divisor,
        "BLOCK_J": max(min(8, 256 // block_c), 16 // block_c),
        "BLOCK_S": max(16, min(64 // divisor, next_power_of_2(a.shape[1]))),
        "BLOCK_Z": max(16, min(128 // divisor, next_power_of_2(c_z))),
        "PRECISION": dot_precision(a.dtype),
        "num_warps": 8,
    }


@fused_op
def outer_product_mean_forward(
    z: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, norm: Tensor
) -> Tensor:
    """Return out [batch, N_i, N_j, c_z] contiguous, in the dtype of z.

    weight: in the dtype of a.
    """
    batch, num_i, num_j, c_z = z.shape
    out = torch.empty_like(z)
    constants = _constants(a, c_z)
    tiles = divide_up(num_i, constants["BLOCK_I"]) * divide_up(num_j, constants["BLOCK_J"])
    grid = (tiles, divide_up(c_z, constants["BLOCK_Z"]), batch)
    sizes = (a.shape[1], num_i, num_j, c_z, *a.stride()[:3], *b.stride()[:3])
    launch(forward_kernel, grid, z, a, b, weight, bias, norm, out, *sizes, **constants)
    return out


@fused_op
def outer_product_mean_side_gradient(
    g: Tensor, other: Tensor, weight: Tensor, is_first: bool
) -> Tensor:
    """Return the gradient of one side [batch, N_seq, N, c], in the dtype of the other side.

    g: [batch, N_i, N_j, c_z] contiguous.
    is_first: the gradient is that of a, and `other` is b; else that of b, and `other` is a.
    """
    batch, num_i, num_j, c_z = g.shape
    g_strides = g.stride()
    c = other.shape[-1]
    channel_strides = (c, 1) if is_first else (1, c)
    if not is_first:
        num_i, num_j = num_j, num_i
        g_strides = (g_strides[0], g_strides[2], g_strides[1])
    num_seq = other.shape[1]
    constants = _constants(other, c_z)
    # Every block of sequences computes the gradient of the outer products again, so there are few.
    if other.dtype != torch.float32:
        constants["BLOCK_S"] = max(16, min(128, next_power_of_2(num_seq)))
    gradient = torch.empty(batch, num_seq, num_i, c, dtype=other.dtype, device=other.device)
    tiles = divide_up(num_i, constants["BLOCK_I"]) * divide_up(c, constants["SHARE_C"])
    grid = (tiles, divide_up(num_seq, constants["BLOCK_S"]), batch)
    sizes = (num_seq, num_i, num_j, c_z, *g_strides[:3], *other.stride()[:3], *channel_strides)
    launch(side_gradient_kernel, grid, g, other, weight, gradient, *sizes, **constants)
    return gradient


@fused_op
def outer_product_mean_weight_gradient(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return partial sums [splits, c_z, c * c] float32 of the weight gradient."""
    batch, num_i, num_j, c_z = g.shape
    c = a.shape[-1]
    constants = _constants(a, c_z)
    tiles = batch * divide_up(num_i, constants["BLOCK_I"]) * divide_up(num_j, constants["BLOCK_J"])
    splits = max(1, min(MAX_SPLITS, tiles))
    gradient = torch.empty(splits, c_z, c * c, dtype=torch.float32, device=a.device)
    grid = (divide_up(c, constants["SHARE_C"]), divide_up(c_z, constants["BLOCK_Z"]), splits)
    sizes = (batch, a.shape[1], num_i, num_j, c_z, *a.stride()[:3], *b.stride()[:3])
    launch(weight_gradient_kernel, grid, g, a, b, gradient, *sizes, **constants)
    return gradient


class _OuterProductMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, a, b, weight, bias, norm):
        weight_cast = weight.to(a.dtype)
        ctx.save_for_backward(a, b, weight_cast, norm)
        ctx.dtypes = weight.dtype, bias.dtype
        return outer_product_mean_forward(z, a, b, weight_cast, bias, norm)

    @staticmethod
    def backward(ctx, dz):
        a, b, weight, norm = ctx.saved_tensors
        g, partial = outer_product_mean_scaled_gradient(dz.contiguous(), norm, a.dtype)
        dbias = sum_partials(partial, ctx.dtypes[1])
        da = outer_product_mean_side_gradient(g, b, weight, True)
        db = outer_product_mean_side_gradient(g, a, weight, False)
        dweight = sum_partials(outer_product_mean_weight_gradient(g, a, b), ctx.dtypes[0])
        return dz, da, db, dweight, dbias, None


def outer_product_mean(
    z: Tensor, sides: tuple[Tensor, Tensor], projection: LinearWeights, norm: Tensor
) -> Tensor:
    """Compute kernels.reference.outer_product_mean with one launch forward and six backward."""
    a, b = (x if x.stride(-1) == 1 else x.contiguous() for x in sides)
    return _OuterProductMean.apply(z.contiguous(), a, b, *projection, norm.contiguous())
