"""Layer normalization followed by a linear projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def projected_norm(
    x: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
    *,
    only_projection: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Compute a layer normalization and a linear projection of its result.

    Args:
        x: [..., c]
        norm: of c channels.
        projection: from c to c_out channels, with or without bias.
        only_projection: return None instead of the normalized x.

    Returns:
        x for use as a residual and normalized x, as residual_norm, and the projection of normalized
        x [..., c_out] in the dtype of its weight.
    """
    normalized = layer_norm(x, norm.weight, norm.bias, eps=norm.eps)
    projected = F.linear(normalized.to(projection.weight.dtype), *projection)
    return x, None if only_projection else normalized, projected


@dataclass(frozen=True, kw_only=True)
class ProjectedNormShapes:
    """Shapes of the arguments of projected_norm, for a projection without bias."""

    leading: tuple[int, ...]
    """All dims of x but the last."""
    c: int
    c_out: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes. The results are those without x."""

        def call(kernel: Kernel) -> Kernel:
            return lambda x, gamma, beta, weight: kernel(
                x, norm_weights(gamma, beta), LinearWeights(weight, None)
            )[1:]

        weight, _ = make.linear(self.c, self.c_out)
        leaves = (make.leaf(*self.leading, self.c), *make.norm(self.c), weight)
        return Arguments(leaves=leaves, call=call)
