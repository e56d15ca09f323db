"""Attention of other libraries (PyTorch, cuEquivariance) and torch.compile, to compare with.

The attentions have neither our gate nor our input and output projections, so they are compared with
our attention without the projections ("attention core"). They get q, k and v as views of one matrix
product, and the pair bias as an additive mask.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.reference.self_attention import SelfAttentionShapes
from openfold_opt.model.compiled_parts import compile_for_processor

Work = Callable[[], Tensor]

PEERS = ("SDPA", "FlexAttention", "cuEquivariance")
"""Names of all attentions that attention_peers may return."""


def core_leaves(
    sizes: SelfAttentionShapes, *, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return random projections [batch, groups, N, 4 * heads * c] (q, k, v, gate) and pair bias.

    The pair bias is [batch, heads, N, N], or None if the attention has none. Both are of `dtype`
    and require gradients.
    """
    generator = torch.Generator(device=device).manual_seed(0)
    width = 4 * sizes.num_heads * sizes.c_head
    shape = (sizes.batch, sizes.groups, sizes.length, width)
    projected = torch.randn(shape, generator=generator, device=device).to(dtype).requires_grad_()
    if not sizes.has_bias:
        return projected, None
    shape = (sizes.batch, sizes.num_heads, sizes.length, sizes.length)
    return projected, torch.randn(shape, generator=generator, device=device).to(
        dtype
    ).requires_grad_()


def attention_peers(
    sizes: SelfAttentionShapes, projected: Tensor, bias: Tensor | None
) -> dict[str, Work]:
    """Return name -> forward pass, for the inputs that core_leaves returns."""

    def on_heads(attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Work:
        def work() -> Tensor:
            *qkv, _ = projected.unflatten(-1, (4, sizes.num_heads, sizes.c_head)).unbind(-3)
            return attention(*(x.transpose(-2, -3).flatten(0, 1) for x in qkv))

        return work

    peers = {"SDPA": on_heads(lambda q, k, v: _sdpa(q, k, v, bias, sizes))}
    if projected.device.type == "cuda":
        peers["FlexAttention"] = on_heads(_flex_attention(bias, sizes))
        if importlib.util.find_spec("cuequivariance_torch") is not None and bias is not None:
            peers["cuEquivariance"] = on_heads(_cuequivariance(bias, sizes))
    return peers


def _sdpa(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, sizes: SelfAttentionShapes
) -> Tensor:
    """Compute PyTorch's scaled_dot_product_attention, with the bias expanded over the groups."""
    if bias is not None:
        bias = bias[:, None].expand(-1, sizes.groups, -1, -1, -1).flatten(0, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _flex_attention(
    bias: Tensor | None, sizes: SelfAttentionShapes
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled = compile_for_processor(flex_attention)

    def add_bias(score, batch_and_group, head, i, j):
        return score + bias[batch_and_group // sizes.groups, head, i, j]

    return lambda q, k, v: compiled(q, k, v, score_mod=None if bias is None else add_bias)


def _cuequivariance(
    bias: Tensor, sizes: SelfAttentionShapes
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from cuequivariance_torch import triangle_attention

    mask = torch.ones(
        sizes.batch, sizes.groups, 1, 1, sizes.length, dtype=torch.bool, device=bias.device
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (sizes.batch, sizes.groups)) for x in (q, k, v))
        return triangle_attention(q, k, v, bias=bias[:, None], mask=mask)

    return attend
