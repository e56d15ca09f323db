"""Transitions of the MSA and pair representations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.reference.layer_norm import layer_norm


def transition(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    *,
    eps: float,
) -> Tensor:
    """Compute Algorithm 9 or 15 with the residual: x + Linear(ReLU(Linear(LayerNorm(x)))).

    Args:
        x: [..., c]
        norm: weight and bias [c] of the layer normalization.
        first: weight [n * c, c] and bias [n * c] of the first layer.
        second: weight [c, n * c] and bias [c] of the second layer.
        eps: added to the variance.

    Returns:
        [..., c] in the dtype of x.
    """
    return x + F.linear(F.relu(F.linear(layer_norm(x, *norm, eps=eps), *first)), *second)
