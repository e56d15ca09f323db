"""Triangle multiplications: the gated edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import LinearWeights, NormWeights
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
    norm: NormWeights,
    projection: LinearWeights,
    mask: Tensor,
    *,
    c_hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute Algorithm 11, lines 1-3: the factors of the product, and the gate of the output.

    Args:
        z: [batch, N_1, N_2, c_z]
        norm: of c_z channels.
        projection: from c_z to 4 * c_hidden + c_z channels; triangle_gate has the order of parts.
        mask: [batch, N_1, N_2]
        c_hidden: number of channels of a and of b.

    Returns:
        z for use as a residual, as residual_norm; a, b and the output gate, as triangle_gate.
    """
    normalized = layer_norm(z, norm.weight, norm.bias, eps=norm.eps)
    projected = F.linear(normalized.to(projection.weight.dtype), *projection)
    return z, *triangle_gate(projected, mask, c_hidden=c_hidden)


@dataclass(frozen=True, kw_only=True)
class TriangleEdgesShapes:
    """Shapes of the arguments of triangle_edges."""

    batch: int
    n_1: int
    n_2: int
    c_z: int
    c_hidden: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes. The results are those without z."""
        mask = make.full(self.batch, self.n_1, self.n_2)
        leaves = (
            make.leaf(self.batch, self.n_1, self.n_2, self.c_z),
            *make.norm(self.c_z),
            *make.linear(self.c_z, 4 * self.c_hidden + self.c_z),
        )

        def call(kernel: Kernel) -> Kernel:
            return lambda z, gamma, beta, *projection: kernel(
                z,
                norm_weights(gamma, beta),
                LinearWeights(*projection),
                mask,
                c_hidden=self.c_hidden,
            )[1:]

        return Arguments(leaves=leaves, others=(mask,), call=call)
