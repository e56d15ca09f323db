"""Edges of the triangle multiplications: normalization, projection, and the fused gate."""

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.triton.layer_norm import layer_norm
from openfold_opt.kernels.triton.triangle_gate import triangle_gate


def triangle_edges(
    z: Tensor,
    norm: tuple[Tensor, Tensor],
    projection: tuple[Tensor, Tensor],
    mask: Tensor,
    *,
    c_hidden: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.triangle_edges; its docstring has the shapes."""
    weight, bias = projection
    projected = F.linear(layer_norm(z, *norm, eps=eps).to(weight.dtype), weight, bias)
    return triangle_gate(projected, mask, c_hidden=c_hidden)
