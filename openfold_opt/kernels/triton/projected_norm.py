"""Layer normalization in one launch, and the linear projection of its result."""

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.layer_norm import layer_norm


def projected_norm(
    x: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
) -> tuple[Tensor, Tensor]:
    """Compute kernels.reference.projected_norm; its docstring has the shapes."""
    normalized = layer_norm(x, norm.weight, norm.bias, eps=norm.eps)
    return normalized, F.linear(normalized.to(projection.weight.dtype), *projection)
