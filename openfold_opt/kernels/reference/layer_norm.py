"""Layer normalization over the channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import EPS, Arguments, Kernel, TensorMaker


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Normalize the last dim; bfloat16 input is normalized in float32.

    Args:
        x: [..., c]
        weight, bias: [c], float32 also if x is bfloat16.
        eps: added to the variance.

    Returns:
        [..., c] in the dtype of x.
    """
    return F.layer_norm(
        x.float() if x.dtype == torch.bfloat16 else x, weight.shape, weight, bias, eps
    ).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class LayerNormShapes:
    """Shapes of the arguments of layer_norm."""

    leading: tuple[int, ...]
    """All dims but the last."""
    c: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""

        def call(kernel: Kernel) -> Kernel:
            return lambda x, weight, bias: kernel(x, weight, bias, eps=EPS)

        return Arguments(leaves=(make.leaf(*self.leading, self.c), *make.norm(self.c)), call=call)
