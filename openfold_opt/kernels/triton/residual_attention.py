"""Self-attention of a residual stream: normalization, attention and the update of the stream.

Where one launch supports it (attention/normalized_attention.py), normalization, joint projection to
queries, keys, values and gates, and attention are one node of the autograd graph, otherwise two.
The node of the normalization also has the projection to the bias of the attention. Its backward
pass gets the gradients of everything that is computed from x: of both projections and of the
residual.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.attention.attention import attention, attention_gradients
from openfold_opt.kernels.triton.attention.normalized_attention import (
    is_supported,
    normalized_attention_forward,
)
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
        return *_input_gradients(ctx.saved_tensors, ctx.eps, dprojected, dresidual, dbias), None


class _NormalizedAttention(torch.autograd.Function):
    """x -> x, gated values; one launch, and one before it for a bias that is projected from x."""

    @staticmethod
    def forward(
        ctx,
        x,
        gamma,
        beta,
        weight,
        bias,
        bias_weight,
        attention_bias,
        mask,
        num_heads,
        mask_inf,
        eps,
    ):
        if bias_weight is not None:
            attention_bias = _own_bias(x, gamma, beta, bias_weight, eps)
        values, projected, statistics = normalized_attention_forward(
            *(x, gamma, beta, weight, bias, mask, attention_bias, num_heads, mask_inf, eps, True)
        )
        ctx.save_for_backward(
            *(x, gamma, beta, weight, bias, bias_weight),
            *(projected, mask, attention_bias, values, statistics),
        )
        ctx.constants, ctx.eps = (num_heads, mask_inf), eps
        ctx.set_materialize_grads(False)
        return x, values

    @staticmethod
    def backward(ctx, dresidual, dvalues):
        # Under activation checkpointing, saved tensors can be unpacked only once.
        tensors = ctx.saved_tensors
        inputs, saved = tensors[:6], tensors[6:]
        has_own_bias = inputs[5] is not None
        needs_dbias = has_own_bias or ctx.needs_input_grad[6]
        dprojected, dbias = attention_gradients(dvalues, saved, ctx.constants, needs_dbias)
        own_dbias = None
        if has_own_bias:
            # [batch, num_heads, N, N] -> [num_heads, rows]
            own_dbias, dbias = dbias.movedim(1, 0).flatten(1), None
        gradients = _input_gradients(inputs, ctx.eps, dprojected, dresidual, own_dbias)
        return *gradients, dbias, None, None, None, None


def _attend(
    inputs: tuple[Tensor | None, ...], num_heads: int, mask_inf: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Return x and the gated values; without gradient nothing else is written to memory.

    inputs: the tensors of _NormalizedAttention.
    """
    if torch.is_grad_enabled():
        return _NormalizedAttention.apply(*inputs, num_heads, mask_inf, eps)
    x, gamma, beta, weight, bias, bias_weight, attention_bias, mask = inputs
    if bias_weight is not None:
        attention_bias = _own_bias(x, gamma, beta, bias_weight, eps)
    values, _, _ = normalized_attention_forward(
        *(x, gamma, beta, weight, bias, mask, attention_bias, num_heads, mask_inf, eps, False)
    )
    return x, values


def _own_bias(x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the bias [batch, num_heads, N, N] that is projected from normalized x, contiguous."""
    _, bias, _, _ = projected_norm_forward(x, gamma, beta, weight, eps, False)
    return bias.view(-1, *x.shape[:-1]).movedim(0, 1).contiguous()


def _input_gradients(
    inputs: tuple[Tensor, ...],
    eps: float,
    dprojected: Tensor,
    dresidual: Tensor | None,
    dbias: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of inputs: x, gamma, beta, weight, bias and bias_weight.

    dbias: [num_heads, rows], of the projection with bias_weight; None: zero, or no such projection.
    """
    x, gamma, beta, weight, bias, bias_weight = inputs
    projection = WideProjection(
        x=x,
        gamma=gamma,
        beta=beta,
        eps=eps,
        weight=weight,
        bias=bias,
        # Only the gates have a bias.
        first_sum=3 * len(weight) // 4,
        narrow_weight=bias_weight,
    )
    return projection.gradients(dprojected, dresidual, dbias)


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
    if is_supported(x, projection, num_heads):
        bias = None if bias is None else bias.contiguous()
        inputs = (x, gamma, beta, *projection, bias_weight, bias, mask.contiguous())
        x, values = _attend(inputs, num_heads, mask_inf, eps)
        return projected_residual(x, values, output, dropout)
    x, projected, own_bias = _NormProjection.apply(x, gamma, beta, *projection, bias_weight, eps)
    if own_bias is not None:
        bias = own_bias.view(-1, *x.shape[:-1]).movedim(0, 1)
    values = attention(projected, **options, bias=bias)
    return projected_residual(x, values, output, dropout)
