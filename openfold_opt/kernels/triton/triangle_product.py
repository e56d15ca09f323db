"""Update of a triangle multiplication from its product: fused steps after the sum over edges."""

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.dropout_residual import dropout_residual
from openfold_opt.kernels.triton.layer_norm import layer_norm


def triangle_product(
    z: Tensor, product: Tensor, gate: Tensor, norm: NormWeights, output: LinearWeights
) -> Tensor:
    """Compute kernels.reference.triangle_product; its docstring has the shapes.

    The normalization reads the product with channels in the first dim, without a copy.
    """
    normalized = layer_norm(product.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
    update = F.linear(normalized.to(output.weight.dtype), *output)
    return z.copy_(dropout_residual(z, update, None, gate))
