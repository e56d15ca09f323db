"""Gated attention in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.reference.attention import attention as reference
from openfold_opt.kernels.triton.attention.attention import attention
from tests.support.kernel_agreement import (
    DEVICE,
    assert_bfloat16_rule,
    assert_same,
    evaluate,
    random,
    random_mask,
)

SIZES = [
    (2, 3, 7, 3, 5),
    (1, 2, 33, 2, 8),
    (1, 1, 1, 1, 1),
    (1, 2, 70, 1, 40),
    (1, 3, 17, 2, 16),
    (1, 1, 20, 1, 64),
    (1, 1, 20, 1, 100),
    (1, 2, 64, 1, 32),
    (1, 3, 64, 4, 8),
    (1, 2, 20, 4, 3),
]
"""batch, groups, N, heads, channels of a head; N = 64 fills all tiles"""
LONG_SIZES = [(256, 1, 32), (256, 2, 8), (384, 1, 16)]
"""N, heads, channels of a head"""


def with_bias(function, heads, mask):
    return lambda projected, bias: function(
        projected, num_heads=heads, mask=mask, mask_inf=1e9, bias=bias
    )


def without_bias(function, heads, mask):
    return lambda projected: function(projected, num_heads=heads, mask=mask, mask_inf=1e9)


@pytest.mark.parametrize(("batch", "groups", "n", "heads", "c"), SIZES)
def test_values_and_gradients(batch, groups, n, heads, c):
    mask = random_mask(batch, groups, n)
    projected, bias = random(batch, groups, n, 4 * heads * c), random(batch, heads, n, n, seed=1)
    assert_same(
        with_bias(attention, heads, mask), with_bias(reference, heads, mask), (projected, bias)
    )
    assert_same(
        without_bias(attention, heads, mask), without_bias(reference, heads, mask), (projected,)
    )


@pytest.mark.parametrize(("n", "heads", "c"), LONG_SIZES)
def test_long_groups(n, heads, c):
    mask = random_mask(1, 2, n)
    leaves = random(1, 2, n, 4 * heads * c), random(1, heads, n, n, seed=1)
    assert_same(with_bias(attention, heads, mask), with_bias(reference, heads, mask), leaves)


@pytest.mark.parametrize(("n", "heads", "c"), [(9, 2, 4), (64, 2, 8), (64, 1, 16), (32, 1, 32)])
def test_fully_masked_groups_have_the_reference_gradients(n, heads, c):
    mask = torch.zeros(1, 2, n, device=DEVICE)
    leaves = random(1, 2, n, 4 * heads * c), random(1, heads, n, n, seed=1)
    assert_same(with_bias(attention, heads, mask), with_bias(reference, heads, mask), leaves)


@pytest.mark.parametrize("n", [10, 64])
def test_fully_masked_groups_have_equal_weights_whatever_the_logits(n):
    leaves = random(1, 1, n, 4 * 8, scale=100.0), random(1, 1, n, n, seed=1, scale=1000.0)
    mask = torch.zeros(1, 1, n, device=DEVICE)
    out, dprojected, dbias = evaluate(with_bias(attention, 1, mask), leaves)
    _, _, v, gate = leaves[0].chunk(4, dim=-1)
    torch.testing.assert_close(out, v.mean(2, keepdim=True) * gate.sigmoid())
    assert dprojected.isfinite().all() and dbias.isfinite().all()


def test_strided_input_and_bias():
    mask = random_mask(2, 3, 6)
    leaves = random(2, 6, 3, 2 * 4 * 2 * 4), random(2, 6, 6, 2, seed=1)

    def call(function):
        return lambda x, bias: with_bias(function, 2, mask)(
            x.transpose(1, 2)[..., :32], bias.movedim(-1, 1)
        )

    assert_same(call(attention), call(reference), leaves)


def test_more_groups_than_programs_for_a_tile_of_the_bias():
    mask = random_mask(1, 19, 5)
    leaves = random(1, 19, 5, 4 * 4), random(1, 1, 5, 5, seed=1)
    assert_same(with_bias(attention, 1, mask), with_bias(reference, 1, mask), leaves)


def test_large_logits_do_not_overflow():
    mask = random_mask(1, 3, 8)[:, 1:]
    # In a group whose keys are all masked, the reference rounds its logits to multiples of 64.
    assert mask.sum(-1).min() > 0
    leaves = random(1, 2, 8, 4 * 8, scale=30.0), random(1, 2, 8, 8, seed=1)
    assert_same(
        with_bias(attention, 2, mask), with_bias(reference, 2, mask), leaves, tolerance=1e-4
    )


@pytest.mark.parametrize(
    ("heads", "c", "n"),
    [(2, 8, 20), (2, 8, 128), (2, 32, 33), (1, 16, 64), (1, 32, 256), (1, 32, 704)],
)
def test_bfloat16(heads, c, n):
    mask = random_mask(1, 3, n)
    leaves = random(1, 3, n, 4 * heads * c), random(1, heads, n, n, seed=1)
    assert_bfloat16_rule(
        with_bias(attention, heads, mask), with_bias(reference, heads, mask), leaves, (True, True)
    )
