"""Self-attention of a residual stream: normalization, attention and the update of the stream.

The normalization, the joint projection to queries, keys, values and gates, and the projection to
the bias of the attention are one node of the autograd graph. Its backward pass gets the gradients
of everything that is computed from x: of both projections and of the residual.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.attention.attention import attention
from openfold_opt.kernels.triton.layer_norm import layer_norm_forward
from openfold_opt.kernels.triton.projected_norm import (
    is_fused_projection,
    projected_norm,
    projected_norm_forward,
)
from openfold_opt.kernels.triton.projected_residual import projected_residual
from openfold_opt.kernels.triton.self_attention import self_attention
from openfold_opt.kernels.triton.wide_projection.wide_projection import WideProjection


class _NormProjection(torch.autograd.Function):
    """x -> x, projection of normalized x, and bias [c_out, rows] of the attention."""

    @staticmethod
    def forward(ctx, x, gamma, beta, weight, bias, bias_weight, eps):
        own_bias = None
        if bias_weight is None:
            normalized, _, _ = layer_norm_forward(x, gamma, beta, eps)
        else:
            normalized, own_bias, _, _ = projected_norm_forward(
                x, gamma, beta, bias_weight, eps, True
            )
        ctx.save_for_backward(x, gamma, beta, weight, bias, bias_weight)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return x, F.linear(normalized.to(weight.dtype), weight, bias), own_bias

    @staticmethod
    def backward(ctx, dresidual, dprojected, dbias):
        x, gamma, beta, weight, bias, bias_weight = ctx.saved_tensors
        projection = WideProjection(
            x=x,
            gamma=gamma,
            beta=beta,
            eps=ctx.eps,
            weight=weight,
            bias=bias,
            # Only the gates have a bias.
            first_sum=3 * len(weight) // 4,
            narrow_weight=bias_weight,
        )
        return *projection.gradients(dprojected, dresidual, dbias), None


def residual_attention(
    x: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
    output: LinearWeights,
    *,
    num_heads: int,
    mask: Tensor,
    mask_inf: float,
    bias: Tensor | None = None,
    bias_projection: LinearWeights | None = None,
    dropout: Tensor | None = None,
) -> Tensor:
    """Compute self_attention of normalized x, and add it to x.

    Args:
        x: [batch, groups, N, c] with any strides.
        norm: of c channels.
        projection, output, num_heads, mask, mask_inf: as for kernels.reference.self_attention.
        bias: [batch, num_heads, N, N], added to the logits of every group; None: no bias, or that
            of bias_projection.
        bias_projection: from c to num_heads channels; the bias is this projection of normalized x
            [batch, N, N, c]. None: no bias, or `bias`.
        dropout: mask of the update, which broadcasts to it, as in dropout_residual; None: no
            dropout.

    Returns:
        [batch, groups, N, c] in the dtype of x. A projection to the bias that projected_norm does
        not fuse is computed by it as a matrix product, before self_attention.
    """
    options = {"num_heads": num_heads, "mask": mask, "mask_inf": mask_inf}
    if bias_projection is not None and not is_fused_projection(bias_projection):
        x, normalized, projected = projected_norm(x, norm, bias_projection)
        return self_attention(
            *(normalized, projection, output),
            **options,
            bias=lambda: projected.movedim(-1, 1),
            residual=x,
            dropout=dropout,
        )
    bias_weight = None if bias_projection is None else bias_projection.weight
    gamma, beta, eps = norm
    x, projected, own_bias = _NormProjection.apply(x, gamma, beta, *projection, bias_weight, eps)
    if own_bias is not None:
        bias = own_bias.view(-1, *x.shape[:-1]).movedim(0, 1)
    values = attention(projected, **options, bias=bias)
    return projected_residual(x, values, output, dropout)
