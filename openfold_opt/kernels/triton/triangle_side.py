"""Edges of one side of a triangle multiplication: normalization, projection, fused gate."""

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.layer_norm import layer_norm
from openfold_opt.kernels.triton.triangle_gate import triangle_gate_forward


def triangle_side(
    z: Tensor, norm: NormWeights, projection: LinearWeights, mask: Tensor, *, out: Tensor
) -> Tensor:
    """Compute kernels.reference.triangle_side; its docstring has the shapes."""
    c = out.shape[1]
    normalized = layer_norm(z, norm.weight, norm.bias, eps=norm.eps)
    projected = F.linear(normalized.to(projection.weight.dtype), *projection)
    out.copy_(triangle_gate_forward(projected.contiguous(), mask.contiguous(), c))
    return projected[..., 2 * c :]
