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


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightState:
    """What a step of the optimizer changes; flat tensors of the same size n."""

    values: Tensor
    """[n] float32: the parameters."""
    exp_avg: Tensor
    """[n] float32: Adam's first moment."""
    exp_avg_sq: Tensor
    """[n] float32: Adam's second moment."""
    average: Tensor
    """[n] float32: running average of the parameters."""
    num_steps: Tensor
    """float64 scalar: steps taken. float64, as 1 - 0.999 in float32 is already wrong in the fifth digit."""
    num_updates: Tensor
    """float32 scalar: values that went into the average; the first is copied."""
    compute_copy: Tensor | None = None
    """[n] bfloat16: the parameters as the model computes with them; None where it uses float32."""


@dataclass(frozen=True, kw_only=True)
class WeightUpdateConstants:
    """Rates of a step of the optimizer."""

    beta_1: float
    beta_2: float
    epsilon: float
    max_norm: float
    """Largest global norm of the gradient."""
    decay_rate: float
    """average <- decay_rate * average + (1 - decay_rate) * values"""


@dataclass(frozen=True, kw_only=True)
class KernelShapes:
    """Largest sizes that a model asks the operations for; kernels that hold a row in registers have limits."""

    max_norm_channels: int = 0
    max_head_size: int = 0
    max_transition_channels: int = 0
    max_outer_product_channels: int = 0
    max_pair_channels: int = 0


@dataclass(frozen=True, kw_only=True)
class KernelSet:
    """One implementation per operation."""

    layer_norm: Callable[..., Tensor]
    """(x, weight, bias, *, eps) -> normalized x"""
    projected_norm: Callable[..., tuple[Tensor, Tensor]]
    """(x, norm, projection, *, eps) -> normalized x, and its projection"""
    self_attention: Callable[..., Tensor]
    """(x, projection, output, *, num_heads, mask, mask_inf, bias: when it is wanted) -> update by gated multi-head attention"""
    global_attention: Callable[..., Tensor]
    """(q, projected, *, num_heads, mask, mask_inf) -> attention with one query per group"""
    triangle_edges: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(z, norm, projection, mask, *, c_hidden, eps) -> a, b with channels in front, gate of the output"""
    triangle_update: Callable[..., Tensor]
    """(z, edges, norm, output, dropout, *, is_outgoing, eps) -> z + gated, projected sums over the third residue"""
    outer_product_mean: Callable[..., Tensor]
    """(z, sides, projection, norm) -> z + projected outer products, averaged over sequences"""
    transition: Callable[..., Tensor]
    """(x, norm, first, second, *, eps) -> x + two-layer perceptron of normalized x"""
    dropout_residual: Callable[..., Tensor]
    """(residual, update, mask, gate) -> residual + update * sigmoid(gate) * mask"""
    invariant_point_attention: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(inputs: InvariantPointInputs, *, mask, mask_inf) -> scalar, point and pair results"""
    dropout_masks: Callable[..., Tensor]
    """(key, places, slots, *, pass_index, shape, rate) -> counter-based dropout masks"""
    weight_update: Callable[..., Tensor]
    """(state: WeightState, gradient, *, learning_rate, flag, constants) -> whether the step was taken, norm"""
