"""Update of the triangle multiplications: fused steps around the product over the third residue."""

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.normalized_residual import normalized_residual


class _EdgeProduct(torch.autograd.Function):
    """Product of two edges, summed over the third residue.

    Its gradients are contiguous, as the backward pass of the edges reads them.
    """

    @staticmethod
    def forward(ctx, a, b, is_outgoing):
        ctx.save_for_backward(a, b)
        ctx.is_outgoing = is_outgoing
        return a @ b.mT if is_outgoing else a.mT @ b

    @staticmethod
    def backward(ctx, dproduct):
        a, b = ctx.saved_tensors
        if ctx.is_outgoing:
            return dproduct @ b, dproduct.mT @ a, None
        return b @ dproduct.mT, a @ dproduct, None


def triangle_update(
    z: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    norm: NormWeights,
    output: LinearWeights,
    dropout: Tensor | None,
    *,
    is_outgoing: bool,
) -> Tensor:
    """Compute kernels.reference.triangle_update; its docstring has the shapes.

    The normalization reads the product with channels in the first dim, without a copy.
    """
    a, b, gate = edges
    product = _EdgeProduct.apply(a, b, is_outgoing)
    return normalized_residual(z, product, norm, output, (dropout, gate))
