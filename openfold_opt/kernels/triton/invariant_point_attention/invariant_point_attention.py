"""Invariant point attention: launch functions, autograd function, and the public function."""

import math

import torch
from torch import Tensor

from openfold_opt.kernels.interface import InvariantPointInputs
from openfold_opt.kernels.triton.invariant_point_attention.kernels import (
    backward_kernel,
    forward_kernel,
)
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)

FORWARD_BLOCK_J, BACKWARD_BLOCK_J = 16, 8
"""Residues j per step. The forward pass sums over them in a matrix product; the backward pass needs
twice the memory for each."""
BACKWARD_BLOCK_CZ = 32
"""Channels of z per step in the backward pass."""


def _constants(q: Tensor, q_points: Tensor, v_points: Tensor, z: Tensor) -> Options:
    """Return the compile-time constants that both kernels share."""
    sizes = {
        "C": q.shape[-1],
        "QK": q_points.shape[-1],
        "VP": v_points.shape[-1],
        "CZ": z.shape[-1],
        "HEADS": q.shape[2],
    }
    blocks = {f"BLOCK_{name}": next_power_of_2(sizes[name]) for name in ("C", "QK", "VP")}
    return (
        sizes
        | blocks
        | {"BLOCK_HEADS": max(MIN_DOT_SIZE, next_power_of_2(q.shape[2])), "num_warps": 8}
    )


def _scales(q: Tensor, q_points: Tensor, mask_inf: float) -> tuple[float, float, float, float]:
    """Return the scales of scalars, points and bias (see the reference version), and mask_inf."""
    num_points = q_points.shape[-1] // 3
    return (
        math.sqrt(1.0 / (3 * q.shape[-1])),
        math.sqrt(1.0 / (3 * (num_points * 9.0 / 2))),
        math.sqrt(1.0 / 3),
        mask_inf,
    )


@fused_op
def invariant_point_attention_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_points: Tensor,
    k_points: Tensor,
    v_points: Tensor,
    bias: Tensor,
    z: Tensor,
    point_weights: Tensor,
    mask: Tensor,
    query_mask: Tensor | None,
    mask_inf: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the results and the softmax statistics. All inputs are contiguous.

    Returns:
        scalars, points [batch, N_q, heads, 3 * num_v_points], pairs; statistics [2, batch, N_q,
        heads] float32.
    """
    batch, n, heads, _ = q.shape
    scalars, points = (x.new_empty(batch, n, *x.shape[2:]) for x in (v, v_points))
    pairs = torch.empty(batch, n, heads, z.shape[-1], dtype=z.dtype, device=z.device)
    statistics = torch.empty(2, batch, n, heads, dtype=torch.float32, device=z.device)
    tensors = (
        q,
        k,
        v,
        q_points,
        k_points,
        v_points,
        bias,
        z,
        point_weights,
        mask,
        mask if query_mask is None else query_mask,
        scalars,
        points,
        pairs,
        *statistics,
    )
    blocks = {
        "BLOCK_J": FORWARD_BLOCK_J,
        "BLOCK_CZ": max(MIN_DOT_SIZE, next_power_of_2(z.shape[-1])),
        "PRECISION": dot_precision(q.dtype),
    }
    constants = _constants(q, q_points, v_points, z) | blocks
    sizes = (n, k.shape[1])
    launch(
        forward_kernel, (n, batch), *tensors, *sizes, *_scales(q, q_points, mask_inf), **constants
    )
    return scalars, points, pairs, statistics


@fused_op
def invariant_point_attention_backward(
    inputs: list[Tensor], results: list[Tensor], gradients: list[Tensor], mask_inf: float
) -> list[Tensor]:
    """Compute the gradients that belong to residue i, the softmax weights and d(logits).

    inputs: of the forward pass; results: of the forward pass; gradients: of scalars, points, pairs.

    Returns:
        Gradients of q, q_points, bias, z and of point_weights per residue [batch, N, heads];
        softmax weights and gradient of the logits [batch, heads, N, N] float32.
    """
    q, k, _, q_points, _, v_points, bias, z = inputs[:8]
    batch, n, heads, _ = q.shape
    query_gradients = [torch.empty_like(x) for x in (q, q_points, bias, z)]
    dpoint_weights = torch.empty(batch, n, heads, dtype=torch.float32, device=q.device)
    weights = torch.empty(batch, heads, n, n, dtype=torch.float32, device=q.device)
    dlogits = torch.empty_like(weights)
    tensors = (
        *inputs,
        *results[:3],
        *results[3],
        *gradients,
        *query_gradients,
        dpoint_weights,
        weights,
        dlogits,
    )
    constants = _constants(q, q_points, v_points, z) | {
        "BLOCK_J": BACKWARD_BLOCK_J,
        "BLOCK_CZ": BACKWARD_BLOCK_CZ,
    }
    launch(backward_kernel, (n, batch), *tensors, n, *_scales(q, q_points, mask_inf), **constants)
    return [*query_gradients, dpoint_weights, weights, dlogits]


class _InvariantPointAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mask_inf, query_mask, *inputs):
        results = invariant_point_attention_forward(*inputs, query_mask, mask_inf)
        ctx.save_for_backward(*inputs, *results)
        ctx.mask_inf = mask_inf
        return results[:3]

    @staticmethod
    def backward(ctx, *gradients):
        inputs, results = list(ctx.saved_tensors[:10]), list(ctx.saved_tensors[10:])
        gradients = [gradient.contiguous() for gradient in gradients]
        dq, dq_points, dbias, dz, dpoint_weights, weights, dlogits = (
            invariant_point_attention_backward(inputs, results, gradients, ctx.mask_inf)
        )
        dk, dv, dk_points, dv_points = _key_gradients(inputs, gradients, weights, dlogits)
        dpoint_weights = dpoint_weights.sum((0, 1)).to(inputs[8].dtype)
        return (
            None,
            None,
            dq,
            dk,
            dv,
            dq_points,
            dk_points,
            dv_points,
            dbias,
            dz,
            dpoint_weights,
            None,
        )


def _key_gradients(
    inputs: list[Tensor], gradients: list[Tensor], weights: Tensor, dlogits: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of k, v, k_points, v_points as matrix products over residues i."""
    q, _, _, q_points, k_points, _, _, _, point_weights = inputs[:9]
    scalar_scale, point_scale, _, _ = _scales(q, q_points, 0.0)

    def sum_over_queries(matrix: Tensor, values: Tensor) -> Tensor:
        return torch.matmul(matrix.transpose(-1, -2), values.transpose(1, 2).float()).transpose(
            1, 2
        )

    dlogits_sum = dlogits.sum(-2).transpose(1, 2).unsqueeze(-1)
    difference_sum = sum_over_queries(dlogits, q_points) - dlogits_sum * k_points
    dk_points = point_scale * point_weights[:, None] * difference_sum
    dv, dv_points = sum_over_queries(weights, gradients[0]), sum_over_queries(weights, gradients[1])
    return scalar_scale * sum_over_queries(dlogits, q), dv, dk_points, dv_points


def invariant_point_attention(
    inputs: InvariantPointInputs,
    *,
    mask: Tensor,
    mask_inf: float,
    query_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute kernels.reference.invariant_point_attention; its docstring has the shapes.

    Makes one launch forward, and one launch and four matrix products backward.
    """
    points = [x.flatten(-2) for x in (inputs.q_points, inputs.k_points, inputs.v_points)]
    tensors = (
        inputs.q,
        inputs.k,
        inputs.v,
        *points,
        inputs.bias,
        inputs.z,
        inputs.point_weights,
        mask,
    )
    query_mask = None if query_mask is None else query_mask.contiguous()
    scalars, points, pairs = _InvariantPointAttention.apply(
        mask_inf, query_mask, *(x.contiguous() for x in tensors)
    )
    return scalars, points.unflatten(-1, (-1, 3)), pairs
