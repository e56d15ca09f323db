"""Outer products of the MSA columns of two residues, averaged over the sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker
from openfold_opt.kernels.interface import LinearWeights


def outer_product_mean(
    z: Tensor, sides: tuple[Tensor, Tensor], projection: LinearWeights, norm: Tensor
) -> Tensor:
    """Compute Algorithm 10, lines 3-4, with the residual.

    z_ij + Linear(flatten(sum_s outer(a_si, b_sj))) / norm_ij. The paper takes the mean before the
    linear layer; here the bias of the layer is divided, too, as in the MLCommons reference.

    Args:
        z: [batch, N_i, N_j, c_z]
        sides: the factors of the outer product, zero where masked: a [batch, N_seq, N_i, c] and
            b [batch, N_seq, N_j, c].
        projection: from c * c to c_z channels.
        norm: [batch, N_i, N_j, 1], the number of sequences that cover both residues, plus epsilon.

    Returns:
        [batch, N_i, N_j, c_z] in the dtype of z.
    """
    a, b = sides
    batch, num_sequences, num_i, c = a.shape
    num_j = b.shape[2]
    a = a.reshape(batch, num_sequences, num_i * c)
    b = b.reshape(batch, num_sequences, num_j * c)
    outer = torch.matmul(a.transpose(1, 2), b).view(batch, num_i, c, num_j, c)
    outer = outer.transpose(2, 3).reshape(batch, num_i, num_j, c * c)
    return z + (F.linear(outer, *projection) / norm).to(z.dtype)


@dataclass(frozen=True, kw_only=True)
class OuterProductMeanShapes:
    """Shapes of the arguments of outer_product_mean."""

    batch: int
    num_seq: int
    n_i: int
    n_j: int
    c_hidden: int
    c_z: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        norm = make.full(self.batch, self.n_i, self.n_j, 1, value=float(self.num_seq))
        leaves = (
            make.leaf(self.batch, self.n_i, self.n_j, self.c_z),
            *(make.leaf(self.batch, self.num_seq, n, self.c_hidden) for n in (self.n_i, self.n_j)),
            *make.linear(self.c_hidden**2, self.c_z),
        )

        def call(kernel: Kernel) -> Kernel:
            return lambda z, a, b, *projection: kernel(z, (a, b), LinearWeights(*projection), norm)

        return Arguments(leaves=leaves, others=(norm,), call=call)
