"""Transition in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.transition import transition as reference
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


def test_more_rows_than_programs_for_a_chunk_of_the_weights():
    assert_same(call(transition), call(reference), leaves((64 * 17 + 3, 4), 5), tolerance=1e-4)


def test_strided_input():

    def view(x):
        return x.transpose(0, 1)

    assert_same(call(transition, view), call(reference, view), leaves((4, 3, 8), 16))


def test_bfloat16():
    def low(x, nw, nb, w1, b1, w2, b2):
        y = torch.nn.functional.layer_norm(x.float(), nw.shape, nw, nb, 1e-5).to(x.dtype)
        hidden = torch.relu(y @ w1.to(x.dtype).t() + b1.to(x.dtype))
        return x + (hidden @ w2.to(x.dtype).t() + b2.to(x.dtype))

    assert_bfloat16_rule(call(transition), low, leaves((40, 32), 64), (True, *(False,) * 6))
