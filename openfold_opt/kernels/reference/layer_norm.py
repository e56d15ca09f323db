"""Layer normalization over the channels, alone and with a projection behind it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalizes the last dim, in float32 inside whatever the dtype of x.

    Args:
        x: [..., c]
        weight, bias: [c], float32 also where x is bfloat16.
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
    """Layer normalization and a linear layer behind it.

    Args:
        x: [..., c]
        norm: weight and bias [c] of the normalization.
        projection: weight [c_out, c] and bias [c_out] or None.
        eps: added to the variance.
        layer_norm: how to normalize.

    Returns:
        Normalized x, as layer_norm returns it, and its projection [..., c_out] in the dtype of the projection's weight.
    """
    normalized = layer_norm(x, *norm, eps=eps)
    return normalized, F.linear(normalized.to(projection[0].dtype), *projection)
