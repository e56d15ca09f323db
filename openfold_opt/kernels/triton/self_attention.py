"""Self-attention: the fused attention between its two projections."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton.attention.attention import attention
from openfold_opt.kernels.triton.projected_residual import projected_residual


def self_attention(
    x: Tensor,
    projection: LinearWeights,
    output: LinearWeights,
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Callable[[], Tensor] | None = None,
    residual: Tensor | None = None,
    dropout: Tensor | None = None,
) -> Tensor:
    """Compute kernels.reference.self_attention; its docstring has the shapes."""
    projected = F.linear(x.to(projection.weight.dtype), *projection)
    bias_tensor = None if bias is None else bias()
    values = attention(
        projected, num_heads=num_heads, mask=mask, mask_inf=mask_inf, bias=bias_tensor
    )
    if residual is None:
        return F.linear(values, *output)
    return projected_residual(residual, values, output, dropout)
