"""Transitions of the MSA and pair representations."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
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


@dataclass(frozen=True, kw_only=True)
class TransitionShapes:
    """Shapes of the arguments of transition."""

    leading: tuple[int, ...]
    """All dims of x but the last."""
    c: int
    factor: int
    """Hidden channels per channel."""

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        leaves = (
            make.leaf(*self.leading, self.c),
            *make.norm(self.c),
            *make.linear(self.c, self.factor * self.c),
            *make.linear(self.factor * self.c, self.c),
        )

        def call(kernel: Kernel) -> Kernel:
            return lambda x, *rest: kernel(
                x, norm_weights(*rest[:2]), LinearWeights(*rest[2:4]), LinearWeights(*rest[4:])
            )

        return Arguments(leaves=leaves, call=call)
