"""Triangle multiplications: gated edges, and the update from products over the third residue."""

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
    """Compute Algorithm 11, line 2: a, b = mask * sigmoid(gate) * value.

    a and b have their channels in the first dim, the layout of the product over edges.

    Args:
        projected: [batch, N_1, N_2, 4 * c_hidden + c_z]: values of a and b, gates of a and b before
            the sigmoid, and the gate of the output (line 3), concatenated.
        mask: [batch, N_1, N_2]
        c_hidden: number of channels of a and of b.

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
    """Compute Algorithm 11, lines 1-3: the factors of the product, and the gate of the output.

    Args:
        z: [batch, N_1, N_2, c_z]
        norm: weight and bias [c_z] of the layer normalization.
        projection: weight [4 * c_hidden + c_z, c_z] and bias; triangle_gate has the order of parts.
        mask: [batch, N_1, N_2]
        c_hidden: number of channels of a and of b.
        eps: added to the variance.
        layer_norm, gate: functions that compute these steps.

    Returns:
        a, b and the output gate, as triangle_gate.
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
    """Compute Algorithm 11, line 4, or Algorithm 12, with the residual.

    z + dropout(sigmoid(gate) * Linear(LayerNorm(sum_k a b))). As in the code of the paper, a has
    residue i and b residue j in both algorithms.

    Args:
        z: [batch, N_i, N_j, c_z]
        edges: a, b and gate. Outgoing: a [batch, c, N_i, N_k] and b [batch, c, N_j, N_k]; incoming:
            a [batch, c, N_k, N_i] and b [batch, c, N_k, N_j]; the gate has the shape of z.
        norm: weight and bias [c] of the normalization of the product.
        output: weight [c_z, c] and bias [c_z].
        dropout: mask that broadcasts to z, or None.
        is_outgoing: Algorithm 11 if true, else Algorithm 12.
        eps: added to the variance.
        layer_norm, dropout_residual: functions that compute these steps.

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
