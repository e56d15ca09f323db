"""Self-attention: the fused attention between its two projections."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.triton.attention.attention import attention


def self_attention(
    x: Tensor,
    projection: tuple[Tensor, Tensor],
    output: tuple[Tensor, Tensor],
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Compute kernels.reference.self_attention; its docstring has the shapes."""
    weight, offset = projection
    projected = F.linear(x.to(weight.dtype), weight, offset)
    bias_tensor = None if bias is None else bias()
    return F.linear(
        attention(projected, num_heads=num_heads, mask=mask, mask_inf=mask_inf, bias=bias_tensor),
        *output,
    )
