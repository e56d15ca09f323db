"""Update of the triangle multiplications: fused steps around the product over the third residue."""

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.layer_norm import layer_norm
from openfold_opt.kernels.triton.projected_residual import projected_residual


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
    product = (
        torch.matmul(a, b.transpose(-1, -2))
        if is_outgoing
        else torch.matmul(a.transpose(-1, -2), b)
    )
    normalized = layer_norm(product.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
    return projected_residual(z, normalized, output, dropout, gate)
