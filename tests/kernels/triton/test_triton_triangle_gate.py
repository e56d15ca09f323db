"""Projection and triangle gate in Triton compared with the reference."""

import pytest
import torch
import torch.nn.functional as F

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.reference.triangle_edges import triangle_gate
from openfold_opt.kernels.triton.triangle_gate import gated_projection
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random, random_mask


def reference(x, projection, mask, *, c_hidden):
    return triangle_gate(F.linear(x, *projection), mask, c_hidden=c_hidden)


def call(function, mask, c_hidden, view=lambda x: x):
    return lambda x, weight, bias: function(
        view(x), LinearWeights(weight, bias), mask, c_hidden=c_hidden
    )


def parameters(c, c_hidden, c_z):
    width = 4 * c_hidden + c_z
    return random(width, c, seed=1, scale=c**-0.5), random(width, seed=2)


@pytest.mark.parametrize(
    ("c_hidden", "c_z", "n_1", "n_2"), [(5, 7, 3, 4), (1, 1, 1, 1), (40, 3, 9, 11), (64, 70, 2, 33)]
)
def test_values_and_gradients(c_hidden, c_z, n_1, n_2):
    mask = random_mask(2, n_1, n_2)
    assert_same(
        call(gated_projection, mask, c_hidden),
        call(reference, mask, c_hidden),
        (random(2, n_1, n_2, 6), *parameters(6, c_hidden, c_z)),
    )


def test_strided_input():
    mask = random_mask(2, 4, 3).transpose(1, 2)

    def view(x):
        return x.transpose(1, 2)[..., :6]

    assert_same(
        call(gated_projection, mask, 5, view),
        call(reference, mask, 5, view),
        (random(2, 4, 3, 9), *parameters(6, 5, 6)),
    )


def test_results_have_channels_first():
    projection = LinearWeights(*parameters(6, 4, 4))
    a, b, _ = gated_projection(random(2, 6, 5, 6), projection, random_mask(2, 6, 5), c_hidden=4)
    assert a.shape == b.shape == (2, 4, 6, 5)
    assert a.stride()[1:] == b.stride()[1:] == (30, 5, 1)


def test_without_gradient():
    mask, projection = random_mask(2, 3, 5), LinearWeights(*parameters(6, 5, 7))
    x = random(2, 3, 5, 6)
    expected = reference(x, projection, mask, c_hidden=5)
    with torch.no_grad():
        found = gated_projection(x, projection, mask, c_hidden=5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_bfloat16():
    mask = random_mask(1, 7, 9)
    assert_bfloat16_rule(
        call(gated_projection, mask, 16),
        call(reference, mask, 16),
        (random(1, 7, 9, 32), *parameters(32, 16, 32)),
        (True, True, True),
    )
