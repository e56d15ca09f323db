"""Outer products of the MSA columns of two residues, averaged over the sequences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
