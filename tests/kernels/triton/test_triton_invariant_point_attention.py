"""Invariant point attention in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import InvariantPointInputs
from openfold_opt.kernels.reference.invariant_point_attention import (
    invariant_point_attention as reference,
)
from openfold_opt.kernels.triton.invariant_point_attention.invariant_point_attention import (
    invariant_point_attention,
)
from tests.support.kernel_agreement import assert_same, random, random_mask

NAMES = ("q", "k", "v", "q_points", "k_points", "v_points", "bias", "z", "point_weights")


def call(function, mask, view=lambda x: x):
    return lambda *leaves: function(
        InvariantPointInputs(
            **{name: view(leaf) for name, leaf in zip(NAMES, leaves, strict=True)}
        ),
        mask=mask,
        mask_inf=1e5,
    )


def leaves(batch, n, heads, c, qk, vp, c_z):
    shapes = (
        [(batch, n, heads, c)] * 3
        + [(batch, n, heads, qk, 3)] * 2
        + [(batch, n, heads, vp, 3), (batch, n, n, heads), (batch, n, n, c_z)]
    )
    return *(random(*shape, seed=i) for i, shape in enumerate(shapes)), random(
        heads, seed=8
    ).abs() + 0.1


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 5, 3, 4, 2, 3, 7),
        (1, 1, 1, 1, 1, 1, 1),
        (1, 20, 12, 16, 4, 8, 20),
        (1, 33, 2, 5, 3, 2, 40),
    ],
)
def test_values_and_gradients(sizes):
    mask = random_mask(*sizes[:2])
    assert_same(
        call(invariant_point_attention, mask), call(reference, mask), leaves(*sizes), tolerance=5e-5
    )


def test_strided_input():
    mask = random_mask(2, 6)

    def double(x):
        return torch.cat([x, x], dim=-1)[..., : x.shape[-1]]

    tensors = leaves(2, 6, 2, 4, 2, 2, 5)
    assert_same(
        call(invariant_point_attention, mask, double),
        call(reference, mask, double),
        tensors,
        tolerance=5e-5,
    )
