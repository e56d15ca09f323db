"""Edges of the triangle multiplications: normalization and projection, and the fused gate.

The normalized pairs are not saved: without gradient they are not written at all, and the backward
pass computes them again where it computes the gradient of the normalization. For pairs of at most
MAX_CHANNELS channels, it has one launch for the gradients of gates, projection and normalization.
"""

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.triangle_gate import (
    triangle_gate_backward,
    triangle_gate_projection,
)
from openfold_opt.kernels.triton.triangle_gate_gradient import triangle_gate_gradient
from openfold_opt.kernels.triton.wide_projection.wide_projection import (
    MAX_CHANNELS,
    WideProjection,
    wide_projection_sums,
)


class _TriangleEdges(torch.autograd.Function):
    """z -> z, both edges and the output gate."""

    @staticmethod
    def forward(ctx, z, gamma, beta, weight, bias, mask, c_hidden, eps):
        (a, b), projected = triangle_gate_projection(
            z.contiguous(), weight, bias, mask, 2 * c_hidden, True, gamma, beta, eps
        )
        ctx.save_for_backward(z, gamma, beta, weight, bias, projected, mask)
        ctx.eps, ctx.edges_shape = eps, a.shape
        ctx.set_materialize_grads(False)
        return z, a, b, projected[..., 4 * c_hidden :]

    @staticmethod
    def backward(ctx, dresidual, *gradients):
        z, gamma, beta, weight, bias, projected, mask = ctx.saved_tensors
        gate_shape = (*projected.shape[:-1], projected.shape[-1] - 4 * ctx.edges_shape[1])
        shapes = (ctx.edges_shape, ctx.edges_shape, gate_shape)
        gradients = [
            projected.new_zeros(shape) if each is None else each.contiguous()
            for each, shape in zip(gradients, shapes, strict=True)
        ]
        if len(gamma) > MAX_CHANNELS:
            dprojected = triangle_gate_backward(*gradients, projected, mask)
            projection = WideProjection(
                x=z, gamma=gamma, beta=beta, eps=ctx.eps, weight=weight, bias=bias
            )
            *parameter_gradients, _ = projection.gradients(dprojected, dresidual)
            return (*parameter_gradients, None, None, None)
        dprojected, dz, normalized, partial = triangle_gate_gradient(
            *(*gradients, projected, mask, weight, z, gamma, beta, ctx.eps, dresidual)
        )
        norm, dbias, _ = wide_projection_sums(partial, gamma, bias, 0, None)
        dweight = dprojected.flatten(0, -2).t() @ normalized
        return (dz, *norm, dweight, dbias.detach(), None, None, None)


def triangle_edges(
    z: Tensor,
    norm: NormWeights,
    projection: LinearWeights,
    mask: Tensor,
    *,
    c_hidden: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute kernels.reference.triangle_edges; its docstring has the shapes.

    Makes one launch forward and three backward.
    """
    mask, (gamma, beta, eps) = mask.contiguous(), norm
    if torch.is_grad_enabled():
        return _TriangleEdges.apply(z, gamma, beta, *projection, mask, c_hidden, eps)
    (a, b), output_gate = triangle_gate_projection(
        z.contiguous(), *projection, mask, 2 * c_hidden, False, *norm
    )
    return z, a, b, output_gate
