"""Transitions of the MSA and pair representations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def transition(
    x: Tensor,
    norm: NormWeights,
    first: LinearWeights,
    second: LinearWeights,
) -> Tensor:
    """Compute Algorithm 9 or 15 with the residual: x + Linear(ReLU(Linear(LayerNorm(x)))).

    Args:
        x: [..., c]
        norm: of c channels.
        first: from c to n * c channels.
        second: from n * c to c channels.

    Returns:
        [..., c] in the dtype of x.
    """
    normalized = layer_norm(x, norm.weight, norm.bias, eps=norm.eps)
    return x + F.linear(F.relu(F.linear(normalized, *first)), *second)
