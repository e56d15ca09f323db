"""Gated self-attention from normalized inputs to the update of the residual stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.reference.dropout_residual import dropout_residual


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
    """Compute lines 2-6 of Algorithms 7, 8, 13 and 14.

    Args:
        x: [batch, groups, N, c], normalized.
        projection: from c to 4 * num_heads * c_head channels: queries, keys, values and gates,
            concatenated. Only the gates have a bias: elsewhere it is zero, and its gradient is not
            used, so an implementation may return zeros there.
        output: from num_heads * c_head to c channels.
        mask: [batch, groups, N], 1 where an element exists.
        mask_inf: subtracted from the logits of keys that do not exist.
        bias: returns [batch, num_heads, N, N], which is added to the logits of every group. Called
            once, after the projections, so that its communication overlaps with them.
        residual: [batch, groups, N, c], to which the update is added, with any strides; None:
            return the update itself.
        dropout: mask of the update, which broadcasts to it, as in dropout_residual; None: no
            dropout. Without a residual there is none.

    Returns:
        The update [batch, groups, N, c] in the dtype of the weights, or the sum in the dtype of
        the residual.
    """
    projected = F.linear(x.to(projection.weight.dtype), *projection)
    bias_tensor = None if bias is None else bias()
    update = F.linear(
        attention(projected, num_heads=num_heads, mask=mask, mask_inf=mask_inf, bias=bias_tensor),
        *output,
    )
    return update if residual is None else dropout_residual(residual, update, dropout)


@dataclass(frozen=True, kw_only=True)
class SelfAttentionShapes:
    """Shapes of the arguments of self_attention."""

    batch: int
    groups: int
    """Rows, columns or residues, in each of which elements attend to each other."""
    length: int
    """Elements of a group."""
    c: int
    num_heads: int
    c_head: int
    has_bias: bool

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        inner = self.num_heads * self.c_head
        mask = make.full(self.batch, self.groups, self.length)
        leaves = [
            make.leaf(self.batch, self.groups, self.length, self.c),
            *make.linear(self.c, 4 * inner),
            *make.linear(inner, self.c),
        ]
        if self.has_bias:
            leaves.append(make.leaf(self.batch, self.num_heads, self.length, self.length))

        def call(kernel: Kernel) -> Kernel:
            return lambda x, *rest: kernel(
                x,
                LinearWeights(*rest[:2]),
                LinearWeights(*rest[2:4]),
                num_heads=self.num_heads,
                mask=mask,
                mask_inf=1e9,
                bias=(lambda: rest[4]) if self.has_bias else None,
            )

        return Arguments(leaves=tuple(leaves), others=(mask,), call=call)


@dataclass(frozen=True, kw_only=True)
class ResidualAttentionShapes(SelfAttentionShapes):
    """Shapes of the arguments of KernelSet.residual_attention; with has_bias, bias is one."""

    has_own_bias: bool = False
    """Whether a bias is projected from the normalized input. Then has_bias is False."""

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        attention = super().arguments(make)
        (x, *others), norm = attention.leaves, make.norm(self.c)
        if self.has_own_bias:
            others.append(make.leaf(self.num_heads, self.c, scale=self.c**-0.5))
        (mask,) = attention.others

        def call(kernel: Kernel) -> Kernel:
            return lambda x, gamma, beta, *rest: kernel(
                x,
                norm_weights(gamma, beta),
                LinearWeights(*rest[:2]),
                LinearWeights(*rest[2:4]),
                num_heads=self.num_heads,
                mask=mask,
                mask_inf=1e9,
                bias=rest[4] if self.has_bias else None,
                bias_projection=LinearWeights(rest[4], None) if self.has_own_bias else None,
            )

        return Arguments(leaves=(x, *norm, *others), others=(mask,), call=call)
