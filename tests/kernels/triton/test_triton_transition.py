"""Transition in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.transition import transition as reference
from openfold_opt.kernels.triton.transition import transition as operation
from openfold_opt.kernels.triton.transition.transition import transition
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random


def call(function, view=lambda x: x):
    return lambda x, nw, nb, w1, b1, w2, b2: function(
        view(x), NormWeights(nw, nb, 1e-5), LinearWeights(w1, b1), LinearWeights(w2, b2)
    )


def leaves(shape, hidden):
    c = shape[-1]
    weights = (
        1.0 + random(c, seed=1),
        random(c, seed=2),
        random(hidden, c, seed=3),
        random(hidden, seed=4),
    )
    return random(*shape), *weights, random(c, hidden, seed=5), random(c, seed=6)


@pytest.mark.parametrize(
    ("shape", "hidden"),
    [((2, 3, 5), 20), ((1, 1), 1), ((3, 50, 33), 70), ((2, 70, 64), 128), ((1, 20, 130), 18)],
)
def test_values_and_gradients(shape, hidden):
    assert_same(call(transition), call(reference), leaves(shape, hidden))


def test_rows_in_parts(monkeypatch):
    monkeypatch.setattr(operation, "MAX_HIDDEN_ELEMENTS", 20 * 70 + 69)
    assert_same(call(transition), call(reference), leaves((3, 17, 6), 70))


def test_strided_input():

    def view(x):
        return x.transpose(0, 1)

    assert_same(call(transition, view), call(reference, view), leaves((4, 3, 8), 16))


@pytest.mark.parametrize(("shape", "hidden"), [((40, 32), 64), ((70, 130), 50), ((3, 129), 512)])
def test_bfloat16(shape, hidden):
    assert_bfloat16_rule(call(transition), low, leaves(shape, hidden), (True, *(False,) * 6))


def test_bfloat16_in_parts(monkeypatch):
    monkeypatch.setattr(operation, "MAX_HIDDEN_ELEMENTS", 16 * 64)
    assert_bfloat16_rule(call(transition), low, leaves((50, 32), 64), (True, *(False,) * 6))


def low(x, nw, nb, w1, b1, w2, b2):
    """Compute the transition with PyTorch, as a model in bfloat16 does."""
    y = torch.nn.functional.layer_norm(x.float(), nw.shape, nw, nb, 1e-5).to(x.dtype)
    hidden = torch.relu(y @ w1.to(x.dtype).t() + b1.to(x.dtype))
    return x + (hidden @ w2.to(x.dtype).t() + b2.to(x.dtype))
