"""Invariant point attention over scalars, pairs and points in space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker
from openfold_opt.kernels.interface import InvariantPointInputs


def squared_distances(q: Tensor, k: Tensor) -> Tensor:
    """Return sum_d (q_id - k_jd)^2 [..., N_i, N_j] of q [..., N_i, d] and k [..., N_j, d]."""
    return (q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1)


def invariant_point_attention(
    inputs: InvariantPointInputs,
    *,
    mask: Tensor,
    mask_inf: float,
    query_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute Algorithm 22, lines 7-10. The caller transforms the points back to local frames.

    At initialization each of the three logit terms has variance 1: scalars are divided by sqrt(c),
    points by sqrt(num_qk_points * 9 / 2) (a squared distance of two standard normal points has
    variance 9 * 2^2 / 2 per halved term), and their sum by sqrt(3).

    Args:
        inputs: without gradient, the queries may be a part of the residues.
        mask: [batch, N_res], 1 where a residue exists.
        mask_inf: subtracted from the logits of pairs with a masked residue.
        query_mask: [batch, N_query], mask of the queries; None: they are all residues.

    Returns:
        scalars [batch, N_query, num_heads, c], points [batch, N_query, num_heads, num_v_points, 3]
        in the global frame, pairs [batch, N_query, num_heads, c_z]
    """
    distances = squared_distances(*flat_points(inputs))
    masks = (mask if query_mask is None else query_mask, mask)
    return attend(inputs, distances, masks, mask_inf=mask_inf)


def attend(
    inputs: InvariantPointInputs,
    squared_distances: Tensor,
    masks: tuple[Tensor, Tensor],
    *,
    mask_inf: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the results from squared distances of points [batch, num_heads, N_query, N_res].

    masks: of queries and of residues.
    """
    q, k, v = inputs.q.transpose(1, 2), inputs.k.transpose(1, 2), inputs.v.transpose(1, 2)
    logits = torch.matmul(q * math.sqrt(1.0 / (3 * q.shape[-1])), k.transpose(-1, -2))
    logits = logits + math.sqrt(1.0 / 3) * inputs.bias.movedim(-1, 1)
    logits = logits + _point_weights(inputs) * squared_distances
    pair_mask = masks[0][:, :, None] * masks[1][:, None, :]
    logits = logits + (mask_inf * (pair_mask - 1.0))[:, None]
    weights = torch.softmax(logits, dim=-1)

    scalars = torch.matmul(weights, v).transpose(1, 2)
    points = torch.matmul(weights, inputs.v_points.flatten(-2).transpose(1, 2)).transpose(1, 2)
    pairs = torch.matmul(weights.transpose(1, 2), inputs.z)
    return scalars, points.unflatten(-1, (-1, 3)), pairs


def _point_weights(inputs: InvariantPointInputs) -> Tensor:
    """Return the scaled point weights -w_head / 2 as [num_heads, 1, 1]."""
    num_points = inputs.q_points.shape[-2]
    scale = math.sqrt(1.0 / (3 * (num_points * 9.0 / 2)))
    return (-0.5 * scale * inputs.point_weights)[:, None, None]


def flat_points(inputs: InvariantPointInputs) -> tuple[Tensor, Tensor]:
    """Return the points of q and k as [batch, num_heads, N_res, num_qk_points * 3]."""
    return inputs.q_points.flatten(-2).transpose(1, 2), inputs.k_points.flatten(-2).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class InvariantPointAttentionShapes:
    """Shapes of the arguments of invariant_point_attention; all of them are float32."""

    batch: int
    num_res: int
    num_heads: int
    c: int
    num_qk_points: int
    num_v_points: int
    c_z: int

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        n, heads = self.num_res, self.num_heads
        qk_points, v_points = (heads, self.num_qk_points, 3), (heads, self.num_v_points, 3)
        shapes = {
            "q": (n, heads, self.c),
            "k": (n, heads, self.c),
            "v": (n, heads, self.c),
            "q_points": (n, *qk_points),
            "k_points": (n, *qk_points),
            "v_points": (n, *v_points),
            "bias": (n, n, heads),
            "z": (n, n, self.c_z),
        }
        leaves = [make.leaf(self.batch, *shape, dtype=torch.float32) for shape in shapes.values()]
        leaves.append(make.full(heads).requires_grad_())
        mask = make.full(self.batch, n)

        def call(kernel: Kernel) -> Kernel:
            def run(*leaves: Tensor) -> tuple[Tensor, ...]:
                named = dict(zip((*shapes, "point_weights"), leaves, strict=True))
                return kernel(InvariantPointInputs(**named), mask=mask, mask_inf=1e5)

            return run

        return Arguments(leaves=tuple(leaves), others=(mask,), call=call)
