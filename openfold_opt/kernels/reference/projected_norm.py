"""Layer normalization followed by a linear projection."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.reference.layer_norm import layer_norm


def projected_norm(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    projection: tuple[Tensor, Tensor | None],
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Compute a layer normalization and a linear projection of its result.

    Args:
        x: [..., c]
        norm: weight and bias [c] of the normalization.
        projection: weight [c_out, c] and bias [c_out] or None.
        eps: added to the variance.

    Returns:
        Normalized x, as returned by layer_norm, and its projection [..., c_out] in the dtype of the
        weight of the projection.
    """
    normalized = layer_norm(x, *norm, eps=eps)
    return normalized, F.linear(normalized.to(projection[0].dtype), *projection)
