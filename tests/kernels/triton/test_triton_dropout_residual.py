"""Gate, dropout and residual in Triton compared with the reference."""

import pytest

from openfold_opt.kernels.reference.dropout_residual import dropout_residual as reference
from openfold_opt.kernels.triton.dropout_residual import dropout_residual
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random

MASKS = {
    "none": None,
    "shared by rows": (2, 1, 6, None),
    "shared by columns": (2, 5, 1, None),
    "whole": (2, 5, 6, None),
    "one value": (1,),
}


def mask_of(kind, c):
    shape = MASKS[kind]
    return (
        None
        if shape is None
        else (random(*(c if size is None else size for size in shape), seed=9) > -0.5).float()
        * 1.25
    )


def with_gate(function, mask):
    return lambda r, u, g: function(r, u, mask, g)


@pytest.mark.parametrize("c", [1, 7, 64])
@pytest.mark.parametrize("kind", MASKS)
def test_values_and_gradients(kind, c):
    mask = mask_of(kind, c)
    leaves = random(2, 5, 6, c), random(2, 5, 6, c, seed=1), random(2, 5, 6, c, seed=2)
    assert_same(with_gate(dropout_residual, mask), with_gate(reference, mask), leaves)

    def without_gate(function):
        return lambda r, u: function(r, u, mask)

    assert_same(without_gate(dropout_residual), without_gate(reference), leaves[:2])


def test_strided_tensors():
    mask = mask_of("shared by rows", 7)
    leaves = random(2, 6, 5, 7), random(2, 6, 5, 7, seed=1), random(2, 5, 6, 10, seed=2)

    def call(function):
        return lambda r, u, g: function(r.transpose(1, 2), u.transpose(1, 2), mask, g[..., 3:])

    assert_same(call(dropout_residual), call(reference), leaves)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 2, 5, 4), (1, 1, 1, 1)])
def test_any_number_of_dims(shape):
    leaves = random(*shape), random(*shape, seed=1), random(*shape, seed=2)
    mask = (random(*shape, seed=3) > 0).float()
    assert_same(with_gate(dropout_residual, mask), with_gate(reference, mask), leaves)


def test_the_result_has_the_memory_layout_of_the_residual():
    residual = random(2, 6, 5, 8).transpose(1, 2)
    assert dropout_residual(residual, random(2, 5, 6, 8), None).stride() == residual.stride()


def test_bfloat16():
    mask = mask_of("shared by rows", 32)
    leaves = random(2, 5, 6, 32), random(2, 5, 6, 32, seed=1), random(2, 5, 6, 32, seed=2)
    fused, expected = with_gate(dropout_residual, mask), with_gate(reference, mask)
    assert_bfloat16_rule(fused, expected, leaves, (True, True, True))


def test_residual_that_is_part_of_a_tensor():
    # Rows 1 to 3 of each sample: the samples have a gap between them.
    leaves = random(2, 5, 6, 7), random(2, 3, 6, 7, seed=1), random(2, 3, 6, 7, seed=2)

    def part(function):
        return lambda r, u, g: function(r[:, 1:4], u, None, g)

    assert_same(part(dropout_residual), part(reference), leaves)
