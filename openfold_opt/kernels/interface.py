"""Types of the kernels: KernelConfig names the implementation of each operation, KernelSet has it.

The function of the same name in kernels/reference defines signature and semantics of an operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from torch import Tensor

Precision = Literal["fp32", "tf32", "bf16"]
"""Precision of a run; train/precision.py describes the values."""

Implementation = Literal["auto", "reference", "cpu", "triton", "cuequivariance"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
"""Implementations that KernelConfig names.

"auto" is "triton" on a GPU, and on the CPU "cpu", or "reference" without a C++ compiler."""

CUEQUIVARIANCE_OPERATIONS = ("self_attention", "triangle_edges", "triangle_update")
"""Operations with the implementation "cuequivariance". The last two are one function there."""


class LinearWeights(NamedTuple):
    """Parameters of a linear layer."""

    weight: Tensor
    """[c_out, c_in]"""
    bias: Tensor | None
    """[c_out]; None for a layer without bias."""


class NormWeights(NamedTuple):
    """Parameters of a layer normalization."""

    weight: Tensor
    """[c] float32"""
    bias: Tensor
    """[c] float32"""
    eps: float
    """Added to the variance."""


class TriangleWeights(NamedTuple):
    """Parameters of a triangle multiplication."""

    norm: NormWeights
    """Of z."""
    projection: LinearWeights
    """To edges and gates; kernels.reference.triangle_edges has the order."""
    output_norm: NormWeights
    """Of the product."""
    output: LinearWeights


@dataclass(frozen=True, kw_only=True, eq=False)
class InvariantPointInputs:
    """Inputs of invariant point attention. Points are in the global frame."""

    q: Tensor
    """[batch, N_query, num_heads, c]; in training the queries are all residues"""
    k: Tensor
    """[batch, N_res, num_heads, c]"""
    v: Tensor
    """[batch, N_res, num_heads, c]"""
    q_points: Tensor
    """[batch, N_query, num_heads, num_qk_points, 3]"""
    k_points: Tensor
    """[batch, N_res, num_heads, num_qk_points, 3]"""
    v_points: Tensor
    """[batch, N_res, num_heads, num_v_points, 3]"""
    bias: Tensor
    """[batch, N_query, N_res, num_heads], projected from the pair representation."""
    z: Tensor
    """[batch, N_query, N_res, c_z]"""
    point_weights: Tensor
    """[num_heads], positive."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightState:
    """State that an optimizer step updates; flat tensors of the same size n."""

    values: Tensor
    """[n] float32: the parameters."""
    exp_avg: Tensor
    """[n] float32: Adam's first moment."""
    exp_avg_sq: Tensor
    """[n] float32: Adam's second moment."""
    average: Tensor
    """[n] float32: running average of the parameters."""
    num_steps: Tensor
    """float64 scalar: steps taken. In float32, 1 - 0.999 is already wrong in the fifth digit."""
    num_updates: Tensor
    """float32 scalar: updates of the average, of which the first copies the values."""
    compute_copy: Tensor | None = None
    """[n] bfloat16: copy of the parameters for the model; None if it computes in float32."""


@dataclass(frozen=True, kw_only=True)
class WeightUpdateConstants:
    """Constants of the optimizer step."""

    beta_1: float
    beta_2: float
    epsilon: float
    max_norm: float
    """Largest global norm of the gradient."""
    decay_rate: float
    """average <- decay_rate * average + (1 - decay_rate) * values."""


@dataclass(frozen=True, kw_only=True)
class KernelShapes:
    """Sizes of a model that limit the choice of kernels, most of all largest ones."""

    max_norm_channels: int = 0
    max_head_size: int = 0
    max_transition_channels: int = 0
    max_outer_product_channels: int = 0
    max_pair_channels: int = 0
    biased_head_sizes: tuple[int, ...] = ()
    """Of all attentions with a bias."""
    triangle_channels: tuple[int, ...] = ()
    """Of all triangle multiplications, hidden channels included."""
    dap_size: int = 1
    """Number of ranks that share a sample in training."""


@dataclass(frozen=True, kw_only=True)
class KernelSet:
    """One implementation per operation."""

    layer_norm: Callable[..., Tensor]
    """(x, weight, bias, *, eps) -> normalized x"""
    residual_norm: Callable[..., tuple[Tensor, Tensor]]
    """(x, norm) -> x, normalized x"""
    projected_norm: Callable[..., tuple[Tensor, Tensor | None, Tensor]]
    """(x, norm, projection, *, only_projection) -> x, normalized x, its projection"""
    self_attention: Callable[..., Tensor]
    """(x, projection, output, *, num_heads, mask, mask_inf, bias, residual, dropout) -> gated
    multi-head attention, or residual + gated multi-head attention * dropout"""
    global_attention: Callable[..., Tensor]
    """(q, projected, *, num_heads, mask, mask_inf) -> attention with one query per group"""
    triangle_edges: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    """(z, norm, projection, mask, *, c_hidden) -> z, edges a and b, output gate"""
    triangle_update: Callable[..., Tensor]
    """(z, edges, norm, output, dropout, *, is_outgoing) -> z + triangle update"""
    triangle_side: Callable[..., Tensor]
    """(z, norm, projection, mask, *, out) -> output gate; writes the edges of one side to out"""
    triangle_product: Callable[..., Tensor]
    """(z, product, gate, norm, output) -> z, to which the triangle update was added in place"""
    outer_product_mean: Callable[..., Tensor]
    """(z, sides, projection, norm) -> z + projected mean of outer products over sequences"""
    transition: Callable[..., Tensor]
    """(x, norm, first, second) -> x + two-layer perceptron of normalized x"""
    dropout_residual: Callable[..., Tensor]
    """(residual, update, mask, gate) -> residual + update * sigmoid(gate) * mask"""
    invariant_point_attention: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(inputs: InvariantPointInputs, *, mask, mask_inf, query_mask) -> scalar, point and pair
    results"""
    backbone_update: Callable[..., tuple[Tensor, Tensor, Tensor]]
    """(update, quaternion, rotation, translation) -> the three of the updated frames"""
    dropout_masks: Callable[..., Tensor]
    """(key, sites, slots, *, pass_index, shape, rate) -> counter-based dropout masks"""
    weight_update: Callable[..., Tensor]
    """(state, gradient, *, learning_rate, flag, constants) -> whether the step was taken, norm"""
    triangle_multiplication: Callable[..., Tensor] | None = None
    """(z, mask, dropout, weights, *, is_outgoing) -> z + triangle update of whole pairs; None:
    triangle_edges and triangle_update compute it"""
    residual_attention: Callable[..., Tensor] | None = None
    """(x, norm, projection, output, *, num_heads, mask, mask_inf, bias, bias_projection, dropout)
    -> x + gated multi-head attention of normalized x * dropout, of a whole representation; None:
    residual_norm or projected_norm, and self_attention compute it"""


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Implementation of each operation, without fallback."""

    category: ClassVar[str] = "implementation"

    layer_norm: Implementation = "reference"
    residual_norm: Implementation = "reference"
    projected_norm: Implementation = "reference"
    self_attention: Implementation = "reference"
    global_attention: Implementation = "reference"
    triangle_edges: Implementation = "reference"
    triangle_update: Implementation = "reference"
    triangle_side: Implementation = "reference"
    triangle_product: Implementation = "reference"
    outer_product_mean: Implementation = "reference"
    transition: Implementation = "reference"
    dropout_residual: Implementation = "reference"
    invariant_point_attention: Implementation = "reference"
    backbone_update: Implementation = "reference"
    dropout_masks: Implementation = "reference"
    weight_update: Implementation = "reference"
    fused_attention: bool = True
    """Whether KernelSet.residual_attention replaces operations, if all of them are Triton's.

    docs/kernels.md describes how to decide on a GPU.
    """

    @property
    def implementations(self) -> dict[str, Implementation]:
        """Operation -> implementation."""
        return {name: value for name, value in vars(self).items() if name != "fused_attention"}

    @classmethod
    def all(cls, name: Implementation) -> KernelConfig:
        """Return a configuration with the same implementation of every operation.

        "cuequivariance" has few operations, and the others are those of Triton.
        """
        chosen = dict.fromkeys(cls().implementations, name)
        if name == "cuequivariance":
            chosen |= {each: "triton" for each in chosen if each not in CUEQUIVARIANCE_OPERATIONS}
        return cls().with_implementations(chosen)

    def with_implementations(self, chosen: Mapping[str, Implementation]) -> KernelConfig:
        """Return a copy with other implementations. chosen: operation -> implementation."""
        changes: dict[str, Any] = dict(chosen)
        return replace(self, **changes)
