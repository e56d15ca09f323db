"""Triangle multiplications without gradient: the update from a product, in place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.layer_norm import layer_norm


def triangle_product(
    z: Tensor, product: Tensor, gate: Tensor, norm: NormWeights, output: LinearWeights
) -> None:
    """Compute Algorithm 11, line 4, after the sum over the third residue, with the residual.

    z += sigmoid(gate) * Linear(LayerNorm(product)). It has no gradient: training computes the
    product in the same operation (triangle_update).

    Args:
        z: [batch, N_1, N_2, c_z], updated in place. Its last two dims are contiguous.
        product: [batch, c, N_1, N_2], contiguous; its contents are undefined afterward.
        gate: in the shape of z, before its sigmoid.
        norm: of c channels.
        output: from c to c_z channels.
    """
    normalized = layer_norm(product.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
    update = F.linear(normalized.to(output.weight.dtype), *output)
    z.add_((update * torch.sigmoid(gate)).to(z.dtype))
