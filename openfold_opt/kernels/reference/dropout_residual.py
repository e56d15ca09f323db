"""Addition of an update to the residual stream, with gate and dropout."""

from __future__ import annotations

import torch
from torch import Tensor


def dropout_residual(
    residual: Tensor, update: Tensor, mask: Tensor | None, gate: Tensor | None = None
) -> Tensor:
    """Compute residual + update * sigmoid(gate) * mask, without the factors that are None.

    Args:
        residual, update: [batch, ..., c]
        mask: broadcastable to update; 0 where dropped, 1 / (1 - rate) where kept. None: no dropout.
        gate: [batch, ..., c], before the sigmoid.

    Returns:
        [batch, ..., c] in the dtype of residual.
    """
    if gate is not None:
        update = update * torch.sigmoid(gate)
    update = update.to(residual.dtype)
    return (
        residual + update
        if mask is None
        else torch.addcmul(residual, update, mask.to(residual.dtype))
    )
