"""Operations on the pair representation, and the small ones, against einsum."""

import pytest
import torch

from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.layer_norm import layer_norm
from openfold_opt.kernels.reference.masked_gate import masked_gate
from openfold_opt.kernels.reference.outer_product_mean import outer_product_mean
from openfold_opt.kernels.reference.transition import transition
from openfold_opt.kernels.reference.triangle_multiplication import triangle_multiplication


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("outgoing", "equation"), [(True, "bikc,bjkc->bijc"), (False, "bkic,bkjc->bijc")])
def test_triangle_multiplication_sums_over_the_third_edge(outgoing, equation):
    # a and b of different sizes, as under axial parallelism
    a = random(2, 3, 5, 4) if outgoing else random(2, 5, 3, 4)
    b = random(2, 7, 5, 4, seed=1) if outgoing else random(2, 5, 7, 4, seed=1)
    found = triangle_multiplication(a, b, outgoing=outgoing)
    torch.testing.assert_close(found, torch.einsum(equation, a, b))


def test_outer_product_mean_divides_the_bias_too():
    a, b, weight, bias = random(2, 4, 3, 2), random(2, 4, 5, 2, seed=1), random(7, 4, seed=2), random(7, seed=3)
    norm = random(2, 3, 5, 1, seed=4).abs() + 0.1
    outer = torch.einsum("bsic,bsjd->bijcd", a, b).flatten(-2)
    expected = (outer @ weight.T + bias) / norm
    torch.testing.assert_close(outer_product_mean(a, b, weight, bias, norm), expected)
    empty = outer_product_mean(torch.zeros_like(a), b, weight, bias, torch.full_like(norm, 1e-3))
    torch.testing.assert_close(empty[0, 0, 0], bias / 1e-3)


def test_masked_gate():
    value, gate, mask = random(2, 3, 4), random(2, 3, 4, seed=1), torch.tensor([[1.0, 0.0, 1.0]] * 2).double()
    torch.testing.assert_close(masked_gate(value, gate, mask), value * mask[..., None] / (1.0 + (-gate).exp()))


def test_transition():
    x, w1, b1, w2, b2 = random(3, 4), random(8, 4, seed=1), random(8, seed=2), random(4, 8, seed=3), random(4, seed=4)
    torch.testing.assert_close(transition(x, w1, b1, w2, b2), (x @ w1.T + b1).clamp(min=0.0) @ w2.T + b2)


def test_layer_norm_is_of_biased_variance():
    x, weight, bias = random(3, 5), random(5, seed=1), random(5, seed=2)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    torch.testing.assert_close(layer_norm(x, weight, bias, eps=1e-5), expected)


def test_dropout_residual_with_and_without_mask():
    residual, update = random(2, 3, 4), random(2, 3, 4, seed=1)
    mask = torch.tensor([0.0, 2.0, 2.0, 0.0]).double()
    torch.testing.assert_close(dropout_residual(residual, update, None), residual + update)
    torch.testing.assert_close(dropout_residual(residual, update, mask), residual + update * mask)
