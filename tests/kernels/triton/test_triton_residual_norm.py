"""Normalization of a residual stream in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import NormWeights
from openfold_opt.kernels.reference.residual_norm import residual_norm as reference
from openfold_opt.kernels.triton.residual_norm import residual_norm
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random


def call(function, view=lambda x: x):
    """Both results are used, the residual in a product, so that its gradient is not constant."""

    def run(x, weight, bias):
        residual, normalized = function(view(x), NormWeights(weight, bias, 1e-5))
        return residual * residual, normalized

    return run


def leaves(*shape, c):
    return random(*shape), 1.0 + random(c, seed=1), random(c, seed=2)


@pytest.mark.parametrize("shape", [(2, 3, 5, 64), (7, 100), (2, 4, 3, 5, 33), (3, 200)])
def test_values_and_gradients(shape):
    assert_same(call(residual_norm), call(reference), leaves(*shape, c=shape[-1]))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(1, 2),
        lambda x: x.movedim(1, -1),
        lambda x: x[:, ::2],
        lambda x: x[..., 1:6],
        lambda x: x[:, :1].expand(-1, 4, -1, -1),
    ],
    ids=["transposed", "channels first", "every second", "part of the channels", "expanded"],
)
def test_strided_input(view):
    x = random(2, 6, 5, 7)
    c = view(x).shape[-1]
    tensors = x, 1.0 + random(c, seed=1), random(c, seed=2)
    assert_same(call(residual_norm, view), call(reference, view), tensors)


@pytest.mark.parametrize("used", [0, 1])
def test_one_result_is_not_used(used):
    x, weight, bias = leaves(4, 9, c=9)

    def gradient(function):
        leaf = x.clone().requires_grad_()
        function(leaf * 2.0, NormWeights(weight, bias, 1e-5))[used].square().sum().backward()
        return leaf.grad

    torch.testing.assert_close(gradient(residual_norm), gradient(reference))


def test_a_residual_gradient_with_other_strides():
    def use(function):
        def run(x, weight, bias):
            residual, normalized = function(x, NormWeights(weight, bias, 1e-5))
            return residual.transpose(0, 1).contiguous(), normalized

        return run

    assert_same(use(residual_norm), use(reference), leaves(3, 5, 8, c=8))


@pytest.mark.parametrize("c", [33, 128])
def test_bfloat16(c):
    assert_bfloat16_rule(
        call(residual_norm), call(reference), leaves(2, 9, c, c=c), (True, False, False)
    )
