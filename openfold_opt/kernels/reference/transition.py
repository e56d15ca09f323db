"""The transitions of MSA and pair representation."""

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
    """x + Linear(ReLU(Linear(LayerNorm(x)))) (Algorithms 9 and 15, with the residual around them).

    Args:
        x: [..., c]
        norm: weight and bias [c] of the layer normalization.
        first: weight [n * c, c] and bias [n * c] of the first layer.
        second: weight [c, n * c] and bias [c] of the second layer.
        eps: of the layer normalization.

    Returns:
        [..., c] in the dtype of x.
    """
    return x + F.linear(F.relu(F.linear(layer_norm(x, *norm, eps=eps), *first)), *second)
