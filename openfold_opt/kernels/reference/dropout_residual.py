"""The addition of a block's update to its residual stream, through dropout."""

from __future__ import annotations

import torch
from torch import Tensor


def dropout_residual(residual: Tensor, update: Tensor, mask: Tensor | None) -> Tensor:
    """residual + update * mask; without a mask (evaluation, or rate 0) residual + update.

    Args:
        residual, update: [..., c]
        mask: broadcastable to update; 0 where dropped, 1 / (1 - rate) where kept.
    """
    if mask is None:
        return residual + update
    return torch.addcmul(residual, update.to(residual.dtype), mask.to(residual.dtype))
