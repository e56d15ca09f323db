"""Triangle multiplications without gradient: the gated edges of one side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def triangle_side(
    z: Tensor, norm: NormWeights, projection: LinearWeights, mask: Tensor, *, out: Tensor
) -> Tensor:
    """Compute Algorithm 11, line 1, and one factor of line 2: mask * sigmoid(gate) * value.

    It has no gradient: training computes both sides together (triangle_edges).

    Args:
        z: [batch, N_1, N_2, c_z]
        norm: of c_z channels.
        projection: from c_z to 2 * c + c_gate channels: values and gates of the edges, and the gate
            of the output (line 3), concatenated.
        mask: [batch, N_1, N_2]
        out: [batch, c, N_1, N_2], receives the edges. Rows [.., N_2] are contiguous; the other
            strides are free.

    Returns:
        The gate of the output, before its sigmoid: [batch, N_1, N_2, c_gate]. c_gate may be 0.
    """
    c = out.shape[1]
    normalized = layer_norm(z, norm.weight, norm.bias, eps=norm.eps)
    projected = F.linear(normalized.to(projection.weight.dtype), *projection)
    value, gate, output_gate = projected.split((c, c, projected.shape[-1] - 2 * c), dim=-1)
    gate = torch.sigmoid(gate) * mask.unsqueeze(-1).to(gate.dtype)
    out.copy_((value * gate).movedim(-1, 1))
    return output_gate


@dataclass(frozen=True, kw_only=True)
class TriangleSideShapes:
    """Shapes of the arguments of triangle_side."""

    batch: int
    n_1: int
    n_2: int
    c_z: int
    c: int
    c_gate: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        edge = (self.batch, self.n_1, self.n_2)
        inputs = (
            make.leaf(*edge, self.c_z),
            *make.norm(self.c_z),
            *make.linear(self.c_z, 2 * self.c + self.c_gate),
        )
        z, gamma, beta, *projection = (x.detach() for x in inputs)
        mask, out = make.full(*edge), z.new_empty(self.batch, self.c, self.n_1, self.n_2)

        def call(kernel: Kernel) -> Kernel:
            return lambda: kernel(
                z, norm_weights(gamma, beta), LinearWeights(*projection), mask, out=out
            )

        others = (z, gamma, beta, *projection, mask)
        return Arguments(others=others, updated=(out,), call=call)
