"""Layer normalization over the channels."""

from __future__ import annotations

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
