"""Layer normalization in one launch, and the linear projection of its result."""

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.residual_norm import residual_norm

MAX_CHANNELS_FIRST = 16
"""Largest number of output channels for which the projection is transposed."""


def projected_norm(
    x: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.projected_norm; its docstring has the shapes."""
    x, normalized = residual_norm(x, norm)
    weight, bias = projection
    low = normalized.to(weight.dtype)
    if len(weight) > MAX_CHANNELS_FIRST or bias is not None:
        return x, normalized, F.linear(low, weight, bias)
    # The product has the channels first in memory: the layout of the bias of an attention.
    projected = torch.mm(weight, low.flatten(0, -2).t())
    return x, normalized, projected.view(-1, *x.shape[:-1]).movedim(0, -1)
