"""Self-attention: the fused attention between its two projections."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton.attention.attention import attention
from openfold_opt.kernels.triton.projected_residual import projected_residual


class _Projection(torch.autograd.Function):
    """The first projection. In the backward pass, the sum for the bias reads only the gates."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dprojected):
        x, weight = ctx.saved_tensors
        rows = dprojected.flatten(0, -2)
        dx, dweight = (rows @ weight).view_as(x), rows.t() @ x.flatten(0, -2)
        first_gate = 3 * len(weight) // 4
        dbias = torch.zeros_like(rows[0])
        torch.sum(rows[:, first_gate:], 0, out=dbias[first_gate:])
        return dx, dweight, dbias


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
    projected = _Projection.apply(x.to(projection.weight.dtype), *projection)
    bias_tensor = None if bias is None else bias()
    values = attention(
        projected, num_heads=num_heads, mask=mask, mask_inf=mask_inf, bias=bias_tensor
    )
    if residual is None:
        return F.linear(values, *output)
    return projected_residual(residual, values, output, dropout)
