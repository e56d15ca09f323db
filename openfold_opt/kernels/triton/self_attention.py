"""Self-attention: the fused attention between its two projections."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton.attention.attention import attention


def self_attention(
    x: Tensor,
    projection: LinearWeights,
    output: LinearWeights,
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Compute kernels.reference.self_attention; its docstring has the shapes."""
    projected = F.linear(x.to(projection.weight.dtype), *projection)
    bias_tensor = None if bias is None else bias()
    return F.linear(
        attention(projected, num_heads=num_heads, mask=mask, mask_inf=mask_inf, bias=bias_tensor),
        *output,
    )
