"""Edges of the triangle multiplications: normalization, projection, and the fused gate."""

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.residual_norm import residual_norm
from openfold_opt.kernels.triton.triangle_gate import gated_projection, triangle_gate_projection


def triangle_edges(
    z: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
    mask: Tensor,
    *,
    c_hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute kernels.reference.triangle_edges; its docstring has the shapes.

    Without gradient, the normalization is not written.
    """
    if not torch.is_grad_enabled():
        (a, b), output_gate = triangle_gate_projection(
            z.contiguous(), *projection, mask.contiguous(), 2 * c_hidden, False, *norm
        )
        return z, a, b, output_gate
    z, normalized = residual_norm(z, norm)
    return z, *gated_projection(normalized, projection, mask, c_hidden=c_hidden)
