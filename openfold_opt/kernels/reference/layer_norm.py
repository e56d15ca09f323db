"""Layer normalization over the channels, with and without a projection."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalize the last dim; bfloat16 input is normalized in float32.

    Args:
        x: [..., c]
        weight, bias: [c], float32 also if x is bfloat16.
        eps: added to the variance.

    Returns:
        [..., c] in the dtype of x.
    """
    return F.layer_norm(
        x.float() if x.dtype == torch.bfloat16 else x, weight.shape, weight, bias, eps
    ).to(x.dtype)


def projected_norm(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    projection: tuple[Tensor, Tensor | None],
    *,
    eps: float,
    layer_norm: Callable[..., Tensor] = layer_norm,
) -> tuple[Tensor, Tensor]:
    """Compute a layer normalization and a linear projection of its result.

    Args:
        x: [..., c]
        norm: weight and bias [c] of the normalization.
        projection: weight [c_out, c] and bias [c_out] or None.
        eps: added to the variance.
        layer_norm: function that normalizes.

    Returns:
        Normalized x, as returned by layer_norm, and its projection [..., c_out] in the dtype of the
        weight of the projection.
    """
    normalized = layer_norm(x, *norm, eps=eps)
    return normalized, F.linear(normalized.to(projection[0].dtype), *projection)
