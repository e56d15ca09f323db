"""Reductions and distances that several losses use."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_mean(value: Tensor, mask: Tensor, *, dims: tuple[int, ...], eps: float = 1e-4) -> Tensor:
    """Average value over dims where mask is 1.

    mask broadcasts to value. eps is added to the count.
    """
    mask = mask.expand_as(value)
    return (mask * value).sum(dims) / (eps + mask.sum(dims))


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Compute -log softmax(logits)[target]: [...].

    Args:
        logits: [..., num_classes] float32.
        target: [...] int64.
    """
    flat = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
    return flat.view(target.shape)


def is_resolution_within(resolution: Tensor, minimum: float, maximum: float) -> Tensor:
    """Return whether minimum <= resolution <= maximum: bool [batch].

    The result is False for a sample without a resolution (NaN).
    """
    return (resolution >= minimum) & (resolution <= maximum)


def pairwise_distance(points: Tensor, others: Tensor, *, eps: float) -> Tensor:
    """Compute sqrt(d^2 + eps) of all pairs: [..., n, 3] and [..., m, 3] -> [..., n, m].

    With eps the gradient is finite for coincident points. Each coordinate is computed separately,
    because tensors with a last dim of 3 are slow on every device.
    """
    offsets = (
        a[..., :, None] - b[..., None, :]
        for a, b in zip(points.unbind(-1), others.unbind(-1), strict=True)
    )
    return torch.sqrt(sum(offset.square() for offset in offsets) + eps)
