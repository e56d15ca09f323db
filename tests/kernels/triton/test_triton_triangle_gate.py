"""Normalization, projection and triangle gate in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.triangle_edges import triangle_edges as reference
from openfold_opt.kernels.triton.triangle_edges import triangle_edges
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random, random_mask


def call(function, mask, c_hidden, view=lambda x: x):
    def run(z, gamma, beta, weight, bias):
        norm, projection = NormWeights(gamma, beta, 1e-5), LinearWeights(weight, bias)
        z, *edges = function(view(z), norm, projection, mask, c_hidden=c_hidden)
        return z * 1.0, *edges

    return run


def parameters(c, c_hidden, c_gate):
    width = 4 * c_hidden + c_gate
    norm = 1.0 + 0.1 * random(c, seed=3), random(c, seed=4)
    return *norm, random(width, c, seed=1, scale=c**-0.5), random(width, seed=2)


@pytest.mark.parametrize(
    ("c", "c_hidden", "c_gate", "n_1", "n_2"),
    [(6, 5, 7, 3, 4), (6, 1, 1, 1, 1), (64, 40, 3, 9, 11), (6, 64, 70, 2, 33), (257, 2, 2, 2, 3)],
)
def test_values_and_gradients(c, c_hidden, c_gate, n_1, n_2):
    """More than 256 channels have separate launches in the backward pass."""
    mask = random_mask(2, n_1, n_2)
    assert_same(
        call(triangle_edges, mask, c_hidden),
        call(reference, mask, c_hidden),
        (random(2, n_1, n_2, c), *parameters(c, c_hidden, c_gate)),
    )


def test_strided_input():
    mask = random_mask(2, 4, 3).transpose(1, 2)

    def view(x):
        return x.transpose(1, 2)[..., :6]

    assert_same(
        call(triangle_edges, mask, 5, view),
        call(reference, mask, 5, view),
        (random(2, 4, 3, 9), *parameters(6, 5, 6)),
    )


@pytest.mark.parametrize("used", range(4))
def test_one_result_is_used(used):
    mask = random_mask(1, 4, 3)
    leaves = [x.requires_grad_() for x in (random(1, 4, 3, 6), *parameters(6, 5, 6))]
    fused, expected = (
        torch.autograd.grad(
            call(function, mask, 5)(*leaves)[used].square().sum(), leaves, allow_unused=True
        )
        for function in (triangle_edges, reference)
    )
    for a, b in zip(fused, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-4, atol=1e-4)


def test_results_have_channels_first():
    norm, projection = parameters(6, 4, 4)[:2], LinearWeights(*parameters(6, 4, 4)[2:])
    _, a, b, _ = triangle_edges(
        random(2, 6, 5, 6),
        NormWeights(*norm, 1e-5),
        projection,
        random_mask(2, 6, 5),
        c_hidden=4,
    )
    assert a.shape == b.shape == (2, 4, 6, 5)
    assert a.stride()[1:] == b.stride()[1:] == (30, 5, 1)


def test_bfloat16():
    mask = random_mask(1, 7, 9)
    assert_bfloat16_rule(
        call(triangle_edges, mask, 16),
        call(reference, mask, 16),
        (random(1, 7, 9, 32), *parameters(32, 16, 32)),
        (True, False, False, True, True),
    )
