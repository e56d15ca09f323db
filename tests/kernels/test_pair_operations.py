"""Operations on the pair representation, transition, normalization and residual, in float64."""

import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.layer_norm import layer_norm
from openfold_opt.kernels.reference.outer_product_mean import outer_product_mean
from openfold_opt.kernels.reference.transition import transition
from openfold_opt.kernels.reference.triangle_edges import triangle_gate


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_outer_product_mean_divides_the_bias_too():
    a, b, weight, bias = (
        random(2, 4, 3, 2),
        random(2, 4, 5, 2, seed=1),
        random(7, 4, seed=2),
        random(7, seed=3),
    )
    norm = random(2, 3, 5, 1, seed=4).abs() + 0.1
    outer = torch.einsum("bsic,bsjd->bijcd", a, b).flatten(-2)
    expected = (outer @ weight.T + bias) / norm
    z = random(2, 3, 5, 7, seed=5)
    torch.testing.assert_close(
        outer_product_mean(z, (a, b), LinearWeights(weight, bias), norm), z + expected
    )
    zero_update = outer_product_mean(
        torch.zeros_like(z),
        (torch.zeros_like(a), b),
        LinearWeights(weight, bias),
        torch.full_like(norm, 1e-3),
    )
    torch.testing.assert_close(zero_update[0, 0, 0], bias / 1e-3)


def test_triangle_gate():
    value, gate, output_gate = (
        random(2, 3, 4, 10),
        random(2, 3, 4, 10, seed=1),
        random(2, 3, 4, 7, seed=2),
    )
    mask = torch.tensor([[[1.0, 0.0, 1.0, 1.0]] * 3] * 2).double()
    a, b, found_gate = triangle_gate(
        torch.cat([value, gate, output_gate], dim=-1), mask, c_hidden=5
    )
    expected = (value * mask[..., None] / (1.0 + (-gate).exp())).movedim(-1, 1)
    torch.testing.assert_close(torch.cat([a, b], dim=1), expected)
    assert torch.equal(found_gate, output_gate)


def test_transition():
    x, w1, b1, w2, b2 = (
        random(3, 4),
        random(8, 4, seed=1),
        random(8, seed=2),
        random(4, 8, seed=3),
        random(4, seed=4),
    )
    norm = random(4, seed=5), random(4, seed=6)
    expected = x + (layer_norm(x, *norm, eps=1e-5) @ w1.T + b1).clamp(min=0.0) @ w2.T + b2
    torch.testing.assert_close(
        transition(x, NormWeights(*norm, 1e-5), LinearWeights(w1, b1), LinearWeights(w2, b2)),
        expected,
    )


def test_layer_norm_uses_the_biased_variance():
    x, weight, bias = random(3, 5), random(5, seed=1), random(5, seed=2)
    centered = x - x.mean(-1, keepdim=True)
    expected = centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    torch.testing.assert_close(layer_norm(x, weight, bias, eps=1e-5), expected)


def test_dropout_residual_with_and_without_mask():
    residual, update = random(2, 3, 4), random(2, 3, 4, seed=1)
    mask = torch.tensor([0.0, 2.0, 2.0, 0.0]).double()
    torch.testing.assert_close(dropout_residual(residual, update, None), residual + update)
    torch.testing.assert_close(dropout_residual(residual, update, mask), residual + update * mask)
    gate = random(2, 3, 4, seed=2)
    torch.testing.assert_close(
        dropout_residual(residual, update, mask, gate), residual + update * gate.sigmoid() * mask
    )
