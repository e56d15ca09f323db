"""Layer normalization in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.reference.layer_norm import layer_norm as reference
from openfold_opt.kernels.triton.layer_norm import layer_norm
from tests.support.kernel_agreement import DEVICE, assert_bfloat16_rule, assert_same, random


def call(function, view=lambda x: x):
    return lambda x, w, b: function(view(x), w, b, eps=1e-5)


def leaves(*shape, c):
    return random(*shape), 1.0 + random(c, seed=1), random(c, seed=2)


@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 64), (1, 1, 1, 1), (7, 100), (2, 4, 3, 5, 33), (3, 200)]
)
def test_values_and_gradients(shape):
    assert_same(call(layer_norm), call(reference), leaves(*shape, c=shape[-1]))


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
    assert_same(call(layer_norm, view), call(reference, view), tensors)


def test_the_gradient_has_the_strides_of_the_input():
    x = random(2, 8, 4, 4).requires_grad_()
    strides = []
    y = x.movedim(1, -1)
    y.register_hook(lambda gradient: strides.append(gradient.stride()))
    layer_norm(
        y, torch.ones(8, device=DEVICE), torch.zeros(8, device=DEVICE), eps=1e-5
    ).sum().backward()
    assert strides == [y.stride()]


def test_constant_rows_and_large_offsets():
    x = torch.cat([torch.full((2, 16), 3.0), torch.randn(2, 16) + 1e4]).to(DEVICE)

    def normalize(function):
        return lambda w, b: function(x, w, b, eps=1e-5)

    assert_same(
        normalize(layer_norm),
        normalize(reference),
        (torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE)),
        tolerance=2e-3,
    )


@pytest.mark.parametrize("c", [33, 128])
def test_bfloat16(c):
    assert_bfloat16_rule(
        call(layer_norm), call(reference), leaves(2, 9, c, c=c), (True, False, False)
    )
