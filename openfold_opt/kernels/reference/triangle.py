"""The triangle multiplications: gated edges, and the update that their products over the third residue make."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.layer_norm import layer_norm


def triangle_gate(
    projected: Tensor, mask: Tensor, *, c_hidden: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 11, line 2: a, b = mask * sigmoid(gate) * value, with the channels in front, as the product over edges wants them.

    Args:
        projected: [batch, N_1, N_2, 4 * c_hidden + c_z]: values of a and b, gates of a and b before the sigmoid, and the gate of the
            output (line 3), side by side as one matrix product yields them.
        mask: [batch, N_1, N_2]
        c_hidden: channels of a and of b.

    Returns:
        a, b: [batch, c_hidden, N_1, N_2]; output gate, before its sigmoid: [batch, N_1, N_2, c_z]
    """
    value, gate, output_gate = projected.split(
        (2 * c_hidden, 2 * c_hidden, projected.shape[-1] - 4 * c_hidden), dim=-1
    )
    a, b = (
        (value * (torch.sigmoid(gate) * mask.unsqueeze(-1).to(gate.dtype)))
        .movedim(-1, 1)
        .chunk(2, dim=1)
    )
    return a, b, output_gate


def triangle_edges(
    z: Tensor,
    norm: tuple[Tensor, Tensor],
    projection: tuple[Tensor, Tensor],
    mask: Tensor,
    *,
    c_hidden: int,
    eps: float,
    layer_norm: Callable[..., Tensor] = layer_norm,
    gate: Callable[..., tuple[Tensor, Tensor, Tensor]] = triangle_gate,
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 11, lines 1-3: what enters the product, and the gate of what leaves it.

    Args:
        z: [batch, N_1, N_2, c_z]
        norm: weight and bias [c_z] of the layer normalization.
        projection: weight [4 * c_hidden + c_z, c_z] and bias, of the parts that `triangle_gate` names.
        mask: [batch, N_1, N_2]
        c_hidden: channels of a and of b.
        eps: of the layer normalization.
        layer_norm, gate: how to compute those.

    Returns:
        As triangle_gate.
    """
    weight, bias = projection
    return gate(
        F.linear(layer_norm(z, *norm, eps=eps).to(weight.dtype), weight, bias),
        mask,
        c_hidden=c_hidden,
    )


def triangle_update(
    z: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    norm: tuple[Tensor, Tensor],
    output: tuple[Tensor, Tensor],
    dropout: Tensor | None,
    *,
    is_outgoing: bool,
    eps: float,
    layer_norm: Callable[..., Tensor] = layer_norm,
    dropout_residual: Callable[..., Tensor] = dropout_residual,
) -> Tensor:
    """Algorithm 11, line 4, or Algorithm 12, with the residual: z + dropout(sigmoid(gate) * Linear(LayerNorm(sum_k a b))).

    As in the paper's code, a goes with i and b with j in both.

    Args:
        z: [batch, N_i, N_j, c_z]
        edges: a, b and gate; outgoing: [batch, c, N_i, N_k] and [batch, c, N_j, N_k]; incoming: [batch, c, N_k, N_i] and
            [batch, c, N_k, N_j]; the gate of z's shape.
        norm: weight and bias [c] of the normalization of the product.
        output: weight [c_z, c] and bias [c_z].
        dropout: mask of the update, or None.
        is_outgoing: which of the two algorithms.
        eps: of the layer normalization.
        layer_norm, dropout_residual: how to compute those.

    Returns:
        [batch, N_i, N_j, c_z] in the dtype of z.
    """
    a, b, gate = edges
    product = (
        torch.matmul(a, b.transpose(-1, -2))
        if is_outgoing
        else torch.matmul(a.transpose(-1, -2), b)
    )
    update = F.linear(
        layer_norm(product.movedim(1, -1), *norm, eps=eps).to(output[0].dtype), *output
    )
    return dropout_residual(z, update, dropout, gate)
