"""Triangle multiplications: the update from the products of two edges over the third residue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker, norm_weights
from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.layer_norm import layer_norm


def triangle_update(
    z: Tensor,
    edges: tuple[Tensor, Tensor, Tensor],
    norm: NormWeights,
    output: LinearWeights,
    dropout: Tensor | None,
    *,
    is_outgoing: bool,
) -> Tensor:
    """Compute Algorithm 11, line 4, or Algorithm 12, with the residual.

    z + dropout(sigmoid(gate) * Linear(LayerNorm(sum_k a b))). As in the code of the paper, a has
    residue i and b residue j in both algorithms.

    Args:
        z: [batch, N_i, N_j, c_z]
        edges: a, b and gate. Outgoing: a [batch, c, N_i, N_k] and b [batch, c, N_j, N_k]; incoming:
            a [batch, c, N_k, N_i] and b [batch, c, N_k, N_j]; the gate has the shape of z.
        norm: of the product, of c channels.
        output: from c to c_z channels.
        dropout: mask that broadcasts to z, or None.
        is_outgoing: Algorithm 11 if true, else Algorithm 12.

    Returns:
        [batch, N_i, N_j, c_z] in the dtype of z.
    """
    a, b, gate = edges
    product = (
        torch.matmul(a, b.transpose(-1, -2))
        if is_outgoing
        else torch.matmul(a.transpose(-1, -2), b)
    )
    normalized = layer_norm(product.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
    update = F.linear(normalized.to(output.weight.dtype), *output)
    return dropout_residual(z, update, dropout, gate)


@dataclass(frozen=True, kw_only=True)
class TriangleUpdateShapes:
    """Shapes of the arguments of triangle_update, with gate and dropout."""

    batch: int
    n_i: int
    n_j: int
    n_k: int
    c_z: int
    c_hidden: int
    is_outgoing: bool = True

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        pair = (self.batch, self.n_i, self.n_j, self.c_z)
        edges = [(n, self.n_k) if self.is_outgoing else (self.n_k, n) for n in (self.n_i, self.n_j)]
        leaves = (
            make.leaf(*pair),
            *(make.leaf(self.batch, self.c_hidden, *edge) for edge in edges),
            make.leaf(*pair),
            *make.norm(self.c_hidden),
            *make.linear(self.c_hidden, self.c_z),
        )
        dropout = make.dropout(self.batch, 1, self.n_j, self.c_z)

        def call(kernel: Kernel) -> Kernel:
            return lambda z, *rest: kernel(
                z,
                rest[:3],
                norm_weights(*rest[3:5]),
                LinearWeights(*rest[5:]),
                dropout,
                is_outgoing=self.is_outgoing,
            )

        return Arguments(leaves=leaves, others=(dropout,), call=call)
