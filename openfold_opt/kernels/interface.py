"""KernelSet: one callable for each operation of the model, chosen once and handed down with the ExecutionPlan.

The signature and the meaning of each operation are those of the function of the same name in kernels/reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class InvariantPointInputs:
    """What enters invariant point attention; points are in the global frame."""

    q: Tensor
    """[batch, N_res, num_heads, c]"""
    k: Tensor
    """[batch, N_res, num_heads, c]"""
    v: Tensor
    """[batch, N_res, num_heads, c]"""
    q_points: Tensor
    """[batch, N_res, num_heads, num_qk_points, 3]"""
    k_points: Tensor
    """[batch, N_res, num_heads, num_qk_points, 3]"""
    v_points: Tensor
    """[batch, N_res, num_heads, num_v_points, 3]"""
    bias: Tensor
    """[batch, N_res, N_res, num_heads], projected from the pair representation"""
    z: Tensor
    """[batch, N_res, N_res, c_z]"""
    point_weights: Tensor
    """[num_heads], positive"""


@dataclass(frozen=True, kw_only=True)
class KernelSet:
    """One implementation per operation."""

    layer_norm: Callable[..., Tensor]
    """(x, weight, bias, *, eps) -> normalised x"""
    attention: Callable[..., Tensor]
    """(q, k, v, *, num_heads, mask, mask_inf, bias, gate) -> gated multi-head attention"""
    global_attention: Callable[..., Tensor]
    """(q, k, v, *, num_heads, mask, mask_inf, gate) -> attention with one query per group"""
    triangle_multiplication: Callable[..., Tensor]
    """(a, b, *, outgoing) -> sum over the third edge of every triangle"""
    masked_gate: Callable[..., Tensor]
    """(value, gate, mask) -> value * sigmoid(gate) * mask"""
    outer_product_mean: Callable[..., Tensor]
    """(a, b, weight, bias, norm) -> projected outer products, averaged over sequences"""
    transition: Callable[..., Tensor]
    """(x, weight_1, bias_1, weight_2, bias_2) -> two-layer perceptron"""
    dropout_residual: Callable[..., Tensor]
    """(residual, update, mask) -> residual + update * mask"""
    invariant_point_attention: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(inputs: InvariantPointInputs, *, mask, mask_inf) -> scalar, point and pair results"""
    dropout_masks: Callable[..., Tensor]
    """(key, places, slots, *, pass_index, shape, rate) -> counter-based dropout masks"""
