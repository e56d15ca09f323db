"""Normalization with a projection to a few channels in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.projected_norm import projected_norm as reference
from openfold_opt.kernels.triton.projected_norm import projected_norm
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random


def call(function, view=lambda x: x, *, only_projection=False):
    def run(x, gamma, beta, weight, bias=None):
        residual, normalized, projected = function(
            view(x),
            NormWeights(gamma, beta, 1e-5),
            LinearWeights(weight, bias),
            only_projection=only_projection,
        )
        assert (normalized is None) == only_projection
        results = (residual * residual, projected)
        return results if only_projection else (*results, normalized)

    return run


def leaves(*shape, c_out):
    c = shape[-1]
    return (
        random(*shape),
        1.0 + random(c, seed=1),
        random(c, seed=2),
        random(c_out, c, seed=3, scale=c**-0.5),
    )


@pytest.mark.parametrize("only_projection", [False, True])
@pytest.mark.parametrize(
    ("shape", "c_out"),
    [((2, 3, 5, 64), 4), ((7, 100), 8), ((1, 1, 40), 1), ((2, 30, 5, 33), 12), ((5, 12), 40)],
)
def test_values_and_gradients(shape, c_out, only_projection):
    fused, expected = (
        call(function, only_projection=only_projection) for function in (projected_norm, reference)
    )
    assert_same(fused, expected, leaves(*shape, c_out=c_out))


@pytest.mark.parametrize("only_projection", [False, True])
@pytest.mark.parametrize(("shape", "c_out"), [((2, 35, 100), 40), ((3, 256), 3), ((2, 260), 20)])
def test_bias(shape, c_out, only_projection):
    """Without the normalized rows, a wide projection of at most 256 channels is fused, too."""
    fused, expected = (
        call(function, only_projection=only_projection) for function in (projected_norm, reference)
    )
    assert_same(fused, expected, (*leaves(*shape, c_out=c_out), random(c_out, seed=4)))


@pytest.mark.parametrize(
    "view",
    [lambda x: x.transpose(1, 2), lambda x: x[:, ::2], lambda x: x[:, :1].expand(-1, 4, -1, -1)],
    ids=["transposed", "every second", "expanded"],
)
def test_strided_input(view):
    for c_out in (4, 20):
        tensors = leaves(2, 6, 5, 24, c_out=c_out)
        for only_projection in (False, True):
            fused, expected = (
                call(function, view, only_projection=only_projection)
                for function in (projected_norm, reference)
            )
            assert_same(fused, expected, tensors)


def test_many_rows_for_each_program():
    """More rows than programs have blocks: each program loops."""
    tensors = leaves(1, 5200, 256, c_out=3)
    fused, expected = (
        call(function, only_projection=True) for function in (projected_norm, reference)
    )
    assert_same(fused, expected, tensors, tolerance=1e-4)


def test_the_channels_of_the_projection_come_first_in_memory():
    x, gamma, beta, weight = leaves(1, 4, 5, 24, c_out=4)
    norm, projection = NormWeights(gamma, beta, 1e-5), LinearWeights(weight, None)
    assert projected_norm(x, norm, projection)[2].movedim(-1, 1).is_contiguous()


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_is_not_used(used):
    x, gamma, beta, weight = leaves(6, 24, c_out=4)

    def gradient(function):
        leaf = x.clone().requires_grad_()
        norm, projection = NormWeights(gamma, beta, 1e-5), LinearWeights(weight, None)
        function(leaf, norm, projection)[1 + used].square().sum().backward()
        return leaf.grad

    torch.testing.assert_close(gradient(projected_norm), gradient(reference))


@pytest.mark.parametrize("c_out", [8, 40])
@pytest.mark.parametrize("only_projection", [False, True])
def test_bfloat16(only_projection, c_out):
    fused, expected = (
        call(function, only_projection=only_projection) for function in (projected_norm, reference)
    )
    is_low = (True, False, False, True)
    assert_bfloat16_rule(fused, expected, leaves(2, 9, 128, c_out=c_out), is_low)
