"""Both steps of a triangle multiplication in Triton compared with the reference."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference import triangle_edges as reference_edges
from openfold_opt.kernels.reference import triangle_update as reference_update
from openfold_opt.kernels.triton import triangle_edges, triangle_update
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random, random_mask

EPS = 1e-5
IS_LOW = (True, False, False, True, True, False, False, True, True)
"""Which leaves are bfloat16 in training."""


def multiply(edges, update, mask, dropout, *, is_outgoing, c_hidden):
    """Return a function of the leaves that adds the update to z."""

    def run(z, gamma, beta, weight, bias, gamma_out, beta_out, weight_out, bias_out):
        projection = LinearWeights(weight, bias)
        z, *a_b_gate = edges(z, NormWeights(gamma, beta, EPS), projection, mask, c_hidden=c_hidden)
        norm, output = NormWeights(gamma_out, beta_out, EPS), LinearWeights(weight_out, bias_out)
        return update(z, tuple(a_b_gate), norm, output, dropout, is_outgoing=is_outgoing)

    return run


def both(*args, **kwargs):
    """Return the fused and the reference version."""
    return (
        multiply(triangle_edges.triangle_edges, triangle_update.triangle_update, *args, **kwargs),
        multiply(reference_edges.triangle_edges, reference_update.triangle_update, *args, **kwargs),
    )


def leaves(batch, n, c_z, c):
    width = 4 * c + c_z
    return (
        random(batch, n, n, c_z),
        1.0 + random(c_z, seed=1),
        random(c_z, seed=2),
        random(width, c_z, seed=3, scale=c_z**-0.5),
        random(width, seed=4),
        1.0 + random(c, seed=5),
        random(c, seed=6),
        random(c_z, c, seed=7, scale=c**-0.5),
        random(c_z, seed=8),
    )


@pytest.mark.parametrize("is_outgoing", [True, False])
@pytest.mark.parametrize("has_dropout", [True, False])
def test_values_and_gradients(is_outgoing, has_dropout):
    batch, n, c_z, c = 2, 7, 12, 20
    mask = random_mask(batch, n, n)
    dropout = (random(batch, 1, n, c_z, seed=9) > -0.5).float() * 1.25 if has_dropout else None
    versions = both(mask, dropout, is_outgoing=is_outgoing, c_hidden=c)
    assert_same(*versions, leaves(batch, n, c_z, c), tolerance=1e-4)


@pytest.mark.parametrize("is_outgoing", [True, False])
@pytest.mark.parametrize(("batch", "n", "c_z", "c"), [(2, 7, 12, 20), (1, 9, 33, 40)])
def test_without_gradient(is_outgoing, batch, n, c_z, c):
    mask = random_mask(batch, n, n)
    dropout = (random(batch, 1, n, c_z, seed=9) > -0.5).float() * 1.25
    fused, reference = both(mask, dropout, is_outgoing=is_outgoing, c_hidden=c)
    tensors = leaves(batch, n, c_z, c)
    with torch.no_grad():
        found, expected = fused(*tensors), reference(*tensors)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_bfloat16_without_gradient():
    """The error is at most twice that of the reference, both compared with float32."""
    fused, reference = both(random_mask(1, 9, 9), None, is_outgoing=True, c_hidden=32)
    tensors = [
        x.bfloat16() if low else x for x, low in zip(leaves(1, 9, 64, 32), IS_LOW, strict=True)
    ]
    with torch.no_grad():
        truth = reference(*(x.float() for x in tensors))
        errors = [
            (version(*tensors).float() - truth).square().mean().sqrt().item()
            for version in (fused, reference)
        ]
    assert errors[0] <= 2.0 * errors[1]


@pytest.mark.parametrize("is_outgoing", [True, False])
def test_bfloat16(is_outgoing):
    mask = random_mask(1, 9, 9)
    versions = both(mask, None, is_outgoing=is_outgoing, c_hidden=16)
    assert_bfloat16_rule(*versions, leaves(1, 9, 32, 16), IS_LOW)
