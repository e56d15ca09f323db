"""The two-layer perceptron of the transitions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def transition(x: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor) -> Tensor:
    """Linear, ReLU, Linear (Algorithms 9 and 15, lines 2-3).

    Args:
        x: [..., c], already normalised.
        weight_1, bias_1: [n * c, c], [n * c]
        weight_2, bias_2: [c, n * c], [c]

    Returns:
        [..., c]
    """
    return F.linear(F.relu(F.linear(x, weight_1, bias_1)), weight_2, bias_2)
