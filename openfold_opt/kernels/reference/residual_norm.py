"""Layer normalization of a residual stream, which is also used unchanged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def residual_norm(x: Tensor, norm: NormWeights) -> tuple[Tensor, Tensor]:
    """Return x and its layer normalization.

    Use the returned x as the residual: a fused backward pass then adds the gradient of the residual
    to that of the normalization.

    Args:
        x: [..., c]
        norm: of c channels.

    Returns:
        x, and the normalized x as returned by layer_norm.
    """
    return x, layer_norm(x, norm.weight, norm.bias, eps=norm.eps)


@dataclass(frozen=True, kw_only=True)
class ResidualNormShapes:
    """Shapes of the arguments of residual_norm."""

    leading: tuple[int, ...]
    """All dims but the last."""
    c: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes. The result is the normalized x only."""

        def call(kernel: Kernel) -> Kernel:
            return lambda x, weight, bias: kernel(x, norm_weights(weight, bias))[1]

        return Arguments(leaves=(make.leaf(*self.leading, self.c), *make.norm(self.c)), call=call)
