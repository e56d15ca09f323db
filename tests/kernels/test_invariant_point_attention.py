"""Invariant point attention compared with Algorithm 22, pair by pair."""

import dataclasses
import math

import torch

from openfold_opt.kernels.interface import InvariantPointInputs
from openfold_opt.kernels.reference.invariant_point_attention import invariant_point_attention

BATCH, NUM_RES, HEADS, C, NUM_QK, NUM_V, C_Z = 2, 5, 3, 4, 2, 3, 6


def random_inputs():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return InvariantPointInputs(
        q=random(BATCH, NUM_RES, HEADS, C),
        k=random(BATCH, NUM_RES, HEADS, C),
        v=random(BATCH, NUM_RES, HEADS, C),
        q_points=random(BATCH, NUM_RES, HEADS, NUM_QK, 3),
        k_points=random(BATCH, NUM_RES, HEADS, NUM_QK, 3),
        v_points=random(BATCH, NUM_RES, HEADS, NUM_V, 3),
        bias=random(BATCH, NUM_RES, NUM_RES, HEADS),
        z=random(BATCH, NUM_RES, NUM_RES, C_Z),
        point_weights=random(HEADS).abs(),
    )


def test_matches_the_formula():
    inputs = random_inputs()
    mask = torch.ones(BATCH, NUM_RES, dtype=torch.float64)
    mask[1, 3:] = 0.0
    scalars, points, pairs = invariant_point_attention(inputs, mask=mask, mask_inf=1e5)
    w_l, w_c = math.sqrt(1.0 / 3), math.sqrt(2.0 / (9 * NUM_QK))
    for b in range(BATCH):
        for h in range(HEADS):
            logits = torch.zeros(NUM_RES, NUM_RES, dtype=torch.float64)
            for i in range(NUM_RES):
                for j in range(NUM_RES):
                    distances = (inputs.q_points[b, i, h] - inputs.k_points[b, j, h]).square().sum()
                    scalar = (
                        inputs.q[b, i, h] @ inputs.k[b, j, h] / math.sqrt(C)
                        + inputs.bias[b, i, j, h]
                    )
                    logits[i, j] = w_l * (scalar - inputs.point_weights[h] * w_c / 2 * distances)
                    logits[i, j] += 1e5 * (mask[b, i] * mask[b, j] - 1.0)
            weights = logits.softmax(-1)
            torch.testing.assert_close(scalars[b, :, h], weights @ inputs.v[b, :, h])
            torch.testing.assert_close(
                points[b, :, h], torch.einsum("ij,jpx->ipx", weights, inputs.v_points[b, :, h])
            )
            torch.testing.assert_close(
                pairs[b, :, h], torch.einsum("ij,ijc->ic", weights, inputs.z[b])
            )


def test_attention_is_invariant_to_a_shift_of_all_points():
    inputs = random_inputs()
    mask = torch.ones(BATCH, NUM_RES, dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    moved = dataclasses.replace(
        inputs, q_points=inputs.q_points + shift, k_points=inputs.k_points + shift
    )
    for a, b in zip(
        invariant_point_attention(inputs, mask=mask, mask_inf=1e5),
        invariant_point_attention(moved, mask=mask, mask_inf=1e5),
    ):
        torch.testing.assert_close(a, b)
