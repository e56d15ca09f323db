"""Global attention in Triton compared with the reference."""

import pytest

from openfold_opt.kernels.reference.global_attention import global_attention as reference
from openfold_opt.kernels.triton.global_attention import global_attention
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random, random_mask


def call(function, heads, mask):
    return lambda q, projected: function(q, projected, num_heads=heads, mask=mask, mask_inf=1e9)


@pytest.mark.parametrize(
    ("batch", "groups", "n", "heads", "c"),
    [(2, 3, 7, 3, 5), (1, 2, 70, 8, 8), (1, 1, 1, 1, 1), (1, 2, 130, 2, 16)],
)
def test_values_and_gradients(batch, groups, n, heads, c):
    mask = random_mask(batch, groups, n)
    leaves = random(batch, groups, heads * c), random(batch, groups, n, (2 + heads) * c, seed=1)
    assert_same(call(global_attention, heads, mask), call(reference, heads, mask), leaves)


def test_strided_input():
    mask = random_mask(2, 5, 4).transpose(1, 2)
    leaves = random(2, 4, 6), random(2, 5, 4, 10, seed=1)

    def transposed(function):
        return lambda q, x: call(function, 3, mask)(q, x.transpose(1, 2))

    assert_same(transposed(global_attention), transposed(reference), leaves)


def test_bfloat16():
    mask = random_mask(1, 3, 40)
    leaves = random(1, 3, 64), random(1, 3, 40, 80, seed=1)
    assert_bfloat16_rule(
        call(global_attention, 8, mask), call(reference, 8, mask), leaves, (True, True)
    )
