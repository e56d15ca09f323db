"""Triangle multiplications without gradient: the update from a product, in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def triangle_product(
    z: Tensor, product: Tensor, gate: Tensor, norm: NormWeights, output: LinearWeights
) -> Tensor:
    """Compute Algorithm 11, line 4, after the sum over the third residue, with the residual.

    z += sigmoid(gate) * Linear(LayerNorm(product)). It has no gradient: training computes the
    product in the same operation (triangle_update).

    Args:
        z: [batch, N_1, N_2, c_z], updated in place. Its last two dims are contiguous.
        product: [batch, c, N_1, N_2], contiguous; its contents are undefined afterward.
        gate: in the shape of z, before its sigmoid.
        norm: of c channels.
        output: from c to c_z channels.

    Returns:
        z
    """
    normalized = layer_norm(product.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
    update = F.linear(normalized.to(output.weight.dtype), *output)
    return z.add_((update * torch.sigmoid(gate)).to(z.dtype))


@dataclass(frozen=True, kw_only=True)
class TriangleProductShapes:
    """Shapes of the arguments of triangle_product."""

    batch: int
    n_1: int
    n_2: int
    c_z: int
    c_hidden: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        edge = (self.n_1, self.n_2)
        inputs = (
            make.leaf(self.batch, *edge, self.c_z),
            make.leaf(self.batch, self.c_hidden, *edge),
            make.leaf(self.batch, *edge, self.c_z),
            *make.norm(self.c_hidden),
            *make.linear(self.c_hidden, self.c_z),
        )
        z, product, gate, gamma, beta, *output = (x.detach() for x in inputs)

        def call(kernel: Kernel) -> Kernel:
            return lambda: kernel(
                z, product, gate, norm_weights(gamma, beta), LinearWeights(*output)
            )

        others = (product, gate, gamma, beta, *output)
        return Arguments(others=others, updated=(z,), call=call)
