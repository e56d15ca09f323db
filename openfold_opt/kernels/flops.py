"""Floating-point operations in matrix products of the fused operators, from their arguments.

Recomputed products count every time. The dictionaries map an operator to its formula; operators
without matrix products are absent.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Formula = Callable[..., int]
"""Function of the arguments of a fused operator."""


def _attention(num_products: int) -> Callable[..., int]:
    """Return a counter. Each product takes 2 N^2 c operations per head and group."""

    def count(projected: Tensor) -> int:
        batch, groups, n, width = projected.shape
        return num_products * 2 * batch * groups * n * n * (width // 4)

    return count


def _wide_projection(rows: Tensor, weight: Tensor, *others: Tensor | float | None) -> int:
    """Count the gradient of the rows, and both gradients of the narrow projection."""
    narrow_weight = others[-1]
    narrow = 2 * narrow_weight.numel() if isinstance(narrow_weight, Tensor) else 0
    return 2 * len(rows) * (weight.numel() + narrow)


def _transition(num_products: int) -> Callable[..., int]:
    return lambda x, weight_1: num_products * 2 * x.shape[0] * weight_1.numel()


def _outer_products(a: Tensor, b: Tensor) -> int:
    batch, num_seq, num_i, c = a.shape
    return 2 * batch * num_seq * num_i * b.shape[2] * c * c


def _projection(z: Tensor, c: int) -> int:
    return 2 * z.numel() * c * c


def _global_attention(num_products: int) -> Callable[..., int]:
    def count(q: Tensor, projected: Tensor) -> int:
        return num_products * 2 * projected.shape[2] * q.numel()

    return count


def _point_attention(q: Tensor, q_points: Tensor, v_points: Tensor, z: Tensor) -> int:
    """Count the logits and the outputs of scalars, points and pairs."""
    batch, n, heads, c = q.shape
    channels = 2 * c + q_points.shape[-1] + v_points.shape[-1] + z.shape[-1]
    return 2 * batch * heads * n * n * channels


def _normalized_attention(
    x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, *_: object
) -> int:
    """Count the joint projection of the rows and both products of the attention."""
    rows = x.numel() // x.shape[-1]
    return 2 * x.numel() * len(weight) + 4 * rows * x.shape[2] * (len(weight) // 4)


ATTENTION: dict[str, Formula] = {
    "normalized_attention_forward": _normalized_attention,
    "attention_forward": lambda projected, *_: _attention(2)(projected),
    "attention_input_gradient": lambda dout, projected, *_: _attention(5)(projected),
    "attention_bias_gradient": lambda projected, *_: _attention(2)(projected),
}

PROJECTED_RESIDUAL: dict[str, Formula] = {
    "projected_residual_forward": lambda residual, x, weight, *_: 2 * x.numel() * weight.shape[0],
    "projected_residual_gradient": lambda dout, x, weight, *_: 4 * x.numel() * weight.shape[0],
    "normalized_residual_gradient": lambda dout, x, gamma, beta, weight, *_: (
        6 * x.numel() * weight.shape[0]
    ),
}

PROJECTED_NORM: dict[str, Formula] = {
    "projected_norm_forward": lambda x, gamma, beta, weight, *_: 2 * x.numel() * len(weight),
    "projected_norm_backward": lambda dy, dp, x, gamma, beta, weight, *_: (
        4 * x.numel() * len(weight)
    ),
}

WIDE_PROJECTION: dict[str, Formula] = {
    "wide_projection_forward": lambda x, gamma, beta, weight, *_: 2 * x.numel() * len(weight),
    "wide_projection_backward": _wide_projection,
}

TRIANGLE_EDGES: dict[str, Formula] = {
    "triangle_gate_projection": lambda x, weight, *_: 2 * x.numel() * weight.shape[0],
    "triangle_gate_gradient": lambda da, db, dgate, projected, mask, weight, *_: (
        2 * projected.numel() * weight.shape[1]
    ),
}

GLOBAL_ATTENTION: dict[str, Formula] = {
    "global_attention_forward": lambda q, projected, *_: _global_attention(2)(q, projected),
    "global_attention_backward": lambda dout, q, projected, *_: _global_attention(6)(q, projected),
}

TRANSITION: dict[str, Formula] = {
    "transition_forward": lambda x, nw, nb, weight_1, *_: _transition(2)(x, weight_1),
    "transition_row_gradient": lambda dy, x, nw, nb, weight_1, *_: _transition(3)(x, weight_1),
}

OUTER_PRODUCT_MEAN: dict[str, Formula] = {
    "outer_product_mean_forward": lambda z, a, b, *_: (
        _outer_products(a, b) + _projection(z, a.shape[-1])
    ),
    "outer_product_mean_weight_gradient": lambda g, a, b: (
        _outer_products(a, b) + _projection(g, a.shape[-1])
    ),
}

INVARIANT_POINT_ATTENTION: dict[str, Formula] = {
    "invariant_point_attention_forward": lambda q, k, v, qp, kp, vp, bias, z, *_: _point_attention(
        q, qp, vp, z
    ),
    "invariant_point_attention_backward": lambda inputs, *_: (
        3 * _point_attention(inputs[0], inputs[3], inputs[5], inputs[7])
    ),
}
