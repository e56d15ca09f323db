"""Layer normalisation over the channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalises the last dim, in float32 inside whatever the dtype of x.

    Args:
        x: [..., c]
        weight, bias: [c]
        eps: added to the variance.

    Returns:
        [..., c] in the dtype of x, or float32 under autocast.
    """
    return F.layer_norm(x, weight.shape, weight, bias, eps)
