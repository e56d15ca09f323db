"""Self-attention with a bias by cuEquivariance, between projections of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from cuequivariance_torch import triangle_attention
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.triton import self_attention as triton_version
from openfold_opt.kernels.triton.dropout_residual import dropout_residual


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
    """Compute kernels.reference.self_attention; its docstring has the shapes.

    The logits of keys that do not exist are -1e9, whatever mask_inf is. Attention without a bias,
    along the columns of the MSA, is not triangle attention: the Triton version computes it.
    """
    if bias is None:
        return triton_version.self_attention(
            x,
            projection,
            output,
            num_heads=num_heads,
            mask=mask,
            mask_inf=mask_inf,
            residual=residual,
            dropout=dropout,
        )
    projected = F.linear(x.to(projection.weight.dtype), *projection)
    *qkv, gate = projected.chunk(4, dim=-1)
    # [batch, groups, num_heads, N, c_head]
    q, k, v = (each.unflatten(-1, (num_heads, -1)).transpose(-2, -3) for each in qkv)
    values = triangle_attention(q, k, v, bias()[:, None], mask=mask[:, :, None, None] > 0.0)
    values = values.transpose(-2, -3).flatten(-2) * torch.sigmoid(gate)
    update = F.linear(values, *output)
    return update if residual is None else dropout_residual(residual, update, dropout)
