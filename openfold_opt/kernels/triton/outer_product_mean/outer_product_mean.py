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
    weight_gradient_kernel,
)
from openfold_opt.kernels.triton.partial_sums import join_parts, sum_partials, sum_parts
from openfold_opt.kernels.triton.scaled_gradient import (
    outer_product_mean_scaled_gradient,
)

MAX_SPLITS = 16
"""Largest number of programs that share the sum over residue pairs of a weight gradient tile."""
MAX_PRODUCT_ELEMENTS = 2**26
"""Largest number of elements of the gradient of the outer products that are in memory at a time."""


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
        da, db = _side_gradients(g, a, b, weight)
        dweight = sum_partials(outer_product_mean_weight_gradient(g, a, b), ctx.dtypes[0])
        return dz, da, db, dweight, dbias, None


def _side_gradients(g: Tensor, a: Tensor, b: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a and b, with strides, in the dtype of a.

    g: [batch, N_i, N_j, c_z] in the dtype of a.
    """
    num_i = max(1, MAX_PRODUCT_ELEMENTS // (g.shape[2] * weight.shape[1]))
    gradients = []
    for g_k, a_k, b_k in zip(g, a, b, strict=True):
        columns = zip(g_k.split(num_i), a_k.split(num_i, dim=1), strict=True)
        parts = [_part_of_side_gradients(*column, b_k, weight) for column in columns]
        da, db = zip(*parts, strict=True)
        gradients.append((join_parts(da, dim=1), sum_parts(db, a.dtype)))
    da, db = ([side[None] for side in sides] for sides in zip(*gradients, strict=True))
    return join_parts(da), join_parts(db)


def _part_of_side_gradients(
    g: Tensor, a: Tensor, b: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of a for some residues i, and their part of the gradient of b.

    Every product is computed once, by cuBLAS. The gradient of the outer products is a matrix: its
    rows are residues i and channels c, its columns are channels d and residues j.

    g: [N_i, N_j, c_z]; a: [N_seq, N_i, c]; b: [N_seq, N_j, c].
    """
    num_seq, num_i, c = a.shape
    num_j = b.shape[1]
    d_products = torch.bmm(weight.t().expand(num_i, -1, -1), g.transpose(1, 2))
    d_products = d_products.view(num_i * c, c * num_j)
    right = b.transpose(1, 2).reshape(num_seq, c * num_j)
    da = (right @ d_products.t()).view(num_seq, num_i, c)
    db = (a.reshape(num_seq, num_i * c) @ d_products).view(num_seq, c, num_j)
    return da, db.transpose(1, 2)


def outer_product_mean(
    z: Tensor, sides: tuple[Tensor, Tensor], projection: LinearWeights, norm: Tensor
) -> Tensor:
    """Compute kernels.reference.outer_product_mean with one launch forward.

    The backward pass makes two launches, three matrix products, copies of the sides, and two sums.
    """
    a, b = (x if x.stride(-1) == 1 else x.contiguous() for x in sides)
    return _OuterProductMean.apply(z.contiguous(), a, b, *projection, norm.contiguous())
