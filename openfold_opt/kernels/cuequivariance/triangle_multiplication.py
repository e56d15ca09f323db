"""A whole triangle multiplication by cuEquivariance, which has no separate edges and update."""

from __future__ import annotations

from cuequivariance_torch import triangle_multiplicative_update
from torch import Tensor

from openfold_opt.kernels.interface import TriangleWeights
from openfold_opt.kernels.triton.dropout_residual import dropout_residual


def triangle_multiplication(
    z: Tensor,
    mask: Tensor,
    dropout: Tensor | None,
    weights: TriangleWeights,
    *,
    is_outgoing: bool,
) -> Tensor:
    """Compute kernels.reference.triangle_edges and triangle_update of whole pairs.

    Args:
        z: [batch, N, N, c_z]
        mask: [batch, N, N]
        dropout: mask that broadcasts to z, or None.
        weights: both normalizations have the same epsilon.
        is_outgoing: Algorithm 11 if true, else Algorithm 12.

    Returns:
        [batch, N, N, c_z] in the dtype of z.
    """
    norm, projection, output_norm, output = weights
    # Parts of weight and bias: values of both edges, their gates, the gate of the update.
    num_both = 2 * len(output_norm.weight)
    sizes = (num_both, num_both, len(output.weight))
    values, gates, output_gate = zip(*(each.split(sizes) for each in projection))
    update = triangle_multiplicative_update(
        z.to(projection.weight.dtype).contiguous(),
        direction="outgoing" if is_outgoing else "incoming",
        mask=mask,
        norm_in_weight=norm.weight,
        norm_in_bias=norm.bias,
        p_in_weight=values[0],
        p_in_bias=values[1],
        g_in_weight=gates[0],
        g_in_bias=gates[1],
        norm_out_weight=output_norm.weight,
        norm_out_bias=output_norm.bias,
        p_out_weight=output.weight,
        p_out_bias=output.bias,
        g_out_weight=output_gate[0],
        g_out_bias=output_gate[1],
        eps=norm.eps,
    )
    return dropout_residual(z, update, dropout)
