"""Outer product mean in Triton compared with the reference."""

import pytest

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.reference.outer_product_mean import outer_product_mean as reference
from openfold_opt.kernels.triton.outer_product_mean import outer_product_mean as operation
from openfold_opt.kernels.triton.outer_product_mean.outer_product_mean import (
    outer_product_mean,
)
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random


def call(function, norm):
    return lambda z, a, b, w, bias: function(z, (a, b), LinearWeights(w, bias), norm)


def leaves(batch, num_seq, num_i, num_j, c, c_z):
    sides = random(batch, num_seq, num_i, c, seed=1), random(batch, num_seq, num_j, c, seed=2)
    return random(batch, num_i, num_j, c_z), *sides, random(c_z, c * c, seed=3), random(c_z, seed=4)


SIZES = [
    (2, 5, 3, 4, 5, 7),
    (1, 1, 1, 1, 1, 1),
    (1, 20, 18, 9, 8, 16),
    (1, 70, 5, 17, 32, 20),
    (1, 3, 2, 3, 2, 150),
    (1, 3, 9, 5, 40, 6),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients(sizes):
    batch, _, num_i, num_j, _, _ = sizes
    norm = random(batch, num_i, num_j, 1, seed=5).abs() + 0.5
    assert_same(
        call(outer_product_mean, norm), call(reference, norm), leaves(*sizes), tolerance=5e-5
    )


@pytest.mark.parametrize("sizes", [(2, 5, 7, 4, 5, 7), (1, 20, 18, 9, 8, 16)])
def test_gradients_of_the_sides_in_parts(sizes, monkeypatch):
    batch, _, num_i, num_j, c, _ = sizes
    monkeypatch.setattr(operation, "MAX_PRODUCT_ELEMENTS", 4 * num_j * c * c)
    norm = random(batch, num_i, num_j, 1, seed=5).abs() + 0.5
    assert_same(
        call(outer_product_mean, norm), call(reference, norm), leaves(*sizes), tolerance=5e-5
    )


def test_parts_of_one_projection():
    norm = random(1, 4, 4, 1, seed=5).abs() + 0.5
    z, ab, _, _, bias = leaves(1, 6, 4, 4, 6, 5)
    w = random(5, 9, seed=3)

    def halves(function):
        return lambda z, ab, w, bias: call(function, norm)(z, *ab.chunk(2, dim=-1), w, bias)

    assert_same(halves(outer_product_mean), halves(reference), (z, ab, w, bias))


@pytest.mark.parametrize("sizes", [(1, 33, 9, 7, 16, 12), (1, 130, 3, 5, 16, 12)])
@pytest.mark.parametrize("elements", [operation.MAX_PRODUCT_ELEMENTS, 1])
def test_bfloat16(sizes, elements, monkeypatch):
    monkeypatch.setattr(operation, "MAX_PRODUCT_ELEMENTS", elements)
    batch, _, num_i, num_j, _, _ = sizes
    norm = random(batch, num_i, num_j, 1, seed=5).abs() + 0.5

    def low(z, a, b, w, bias):
        return reference(z, (a, b), LinearWeights(w.to(a.dtype), bias.to(a.dtype)), norm)

    assert_bfloat16_rule(
        call(outer_product_mean, norm),
        low,
        leaves(*sizes),
        (True, True, True, False, False),
    )
