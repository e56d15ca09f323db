"""Layer normalization followed by a linear projection."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def projected_norm(
    x: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
) -> tuple[Tensor, Tensor]:
    """Compute a layer normalization and a linear projection of its result.

    Args:
        x: [..., c]
        norm: of c channels.
        projection: from c to c_out channels, with or without bias.

    Returns:
        Normalized x, as returned by layer_norm, and its projection [..., c_out] in the dtype of the
        weight of the projection.
    """
    normalized = layer_norm(x, norm.weight, norm.bias, eps=norm.eps)
    return normalized, F.linear(normalized.to(projection.weight.dtype), *projection)
