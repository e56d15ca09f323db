"""Triangle gate in Triton compared with the reference."""

import pytest

from openfold_opt.kernels.reference.triangle_edges import triangle_gate as reference
from openfold_opt.kernels.triton.triangle_gate import triangle_gate
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random, random_mask


def call(function, mask, c_hidden):
    return lambda projected: function(projected, mask, c_hidden=c_hidden)


@pytest.mark.parametrize(
    ("c_hidden", "c_z", "n_1", "n_2"), [(5, 7, 3, 4), (1, 1, 1, 1), (40, 3, 9, 11), (64, 64, 2, 33)]
)
def test_values_and_gradients(c_hidden, c_z, n_1, n_2):
    mask = random_mask(2, n_1, n_2)
    assert_same(
        call(triangle_gate, mask, c_hidden),
        call(reference, mask, c_hidden),
        (random(2, n_1, n_2, 4 * c_hidden + c_z),),
    )


def test_strided_input():
    mask = random_mask(2, 4, 3).transpose(1, 2)

    def view(function):
        return lambda x: call(function, mask, 5)(x.transpose(1, 2)[..., :26])

    assert_same(view(triangle_gate), view(reference), (random(2, 4, 3, 30),))


def test_results_have_channels_first():
    a, b, _ = triangle_gate(random(2, 6, 5, 20), random_mask(2, 6, 5), c_hidden=4)
    assert a.shape == b.shape == (2, 4, 6, 5)
    assert a.stride()[1:] == b.stride()[1:] == (30, 5, 1)


def test_bfloat16():
    mask = random_mask(1, 7, 9)
    assert_bfloat16_rule(
        call(triangle_gate, mask, 16), call(reference, mask, 16), (random(1, 7, 9, 96),), (True,)
    )
