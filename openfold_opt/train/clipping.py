"""Clipping by the global norm."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def clip_by_global_norm(gradients: Tensor, *, max_norm: float) -> Tensor:
    """Scale a gradient so that its 2-norm is at most max_norm, in place.

    gradients: [n] float32, all parameters together, already averaged over ranks and micro-batches.
    Returns the norm before clipping, a float32 scalar on the device; it is not finite if any element
    is not, and the gradient is then useless.
    """
    norm = torch.linalg.vector_norm(gradients)
    gradients.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
