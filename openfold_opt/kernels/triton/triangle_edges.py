"""Edges of the triangle multiplications: normalization, projection, and the fused gate."""

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.layer_norm import layer_norm
from openfold_opt.kernels.triton.triangle_gate import triangle_gate


def triangle_edges(
    z: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
    mask: Tensor,
    *,
    c_hidden: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.triangle_edges; its docstring has the shapes."""
    normalized = layer_norm(z, norm.weight, norm.bias, eps=norm.eps)
    projected = F.linear(normalized.to(projection.weight.dtype), *projection)
    return triangle_gate(projected, mask, c_hidden=c_hidden)
