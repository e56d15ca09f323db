"""Both steps of a triangle multiplication in Triton compared with the reference."""

import pytest

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference import triangle_edges as reference_edges
from openfold_opt.kernels.reference import triangle_update as reference_update
from openfold_opt.kernels.triton import triangle_edges, triangle_update
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random, random_mask

EPS = 1e-5


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
def test_bfloat16(is_outgoing):
    mask = random_mask(1, 9, 9)
    versions = both(mask, None, is_outgoing=is_outgoing, c_hidden=16)
    is_low = (True, False, False, True, True, False, False, True, True)
    assert_bfloat16_rule(*versions, leaves(1, 9, 32, 16), is_low)
