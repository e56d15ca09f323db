"""Layer normalisation over the channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalises the last dim, in float32 inside whatever the dtype of x.

    Args:
        x: [..., c]
        weight, bias: [c], float32 also where x is bfloat16.
        eps: added to the variance.

    Returns:
        [..., c] in the dtype of x.
    """
    return F.layer_norm(x.float() if x.dtype == torch.bfloat16 else x, weight.shape, weight, bias, eps).to(x.dtype)
