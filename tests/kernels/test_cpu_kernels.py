"""CPU kernels compared with the reference: results and every gradient, in one or more tiles."""

import pytest
import torch

from openfold_opt.kernels.cpu.invariant_point_attention import squared_distances
from openfold_opt.kernels.interface import InvariantPointInputs, LinearWeights, NormWeights
from tests.support.cpu_comparison import CPU, compare
from tests.support.kernel_agreement import random, random_mask

pytestmark = [pytest.mark.compiler, pytest.mark.usefixtures("tile_bytes", "on_cpu")]


@pytest.mark.parametrize(
    ("batch", "groups", "n", "heads", "c_head"),
    [(2, 3, 7, 3, 5), (1, 1, 1, 1, 1), (1, 5, 20, 2, 16), (0, 3, 4, 1, 2)],
)
@pytest.mark.parametrize("has_bias", [True, False])
def test_self_attention(batch, groups, n, heads, c_head, has_bias):
    c, inner = 6, heads * c_head
    mask = random_mask(batch, groups, n) if batch else torch.ones(0, groups, n)
    leaves = [
        random(batch, groups, n, c),
        random(4 * inner, c, seed=1),
        random(4 * inner, seed=2),
        random(c, inner, seed=3),
        random(c, seed=4),
    ]
    leaves += [random(batch, heads, n, n, seed=5)] if has_bias else []

    def call(operation, x, w_in, b_in, w_out, b_out, bias=None):
        return operation(
            x,
            LinearWeights(w_in, b_in),
            LinearWeights(w_out, b_out),
            num_heads=heads,
            mask=mask,
            mask_inf=1e9,
            bias=None if bias is None else lambda: bias,
        )

    if batch:
        compare("self_attention", call, leaves, [True] * len(leaves))
    else:
        assert call(CPU["self_attention"], *leaves).shape == (0, groups, n, c)


def test_self_attention_of_a_transposed_input():
    leaves = (
        random(1, 5, 4, 3),
        random(8, 3, seed=1),
        random(8, seed=2),
        random(3, 2, seed=3),
        random(3, seed=4),
    )
    mask = random_mask(1, 4, 5)

    def call(operation, x, w, b, v, d):
        return operation(
            x.transpose(1, 2),
            LinearWeights(w, b),
            LinearWeights(v, d),
            num_heads=2,
            mask=mask,
            mask_inf=1e9,
        )

    compare("self_attention", call, leaves)


# c_z is above 2, as gradients through a normalization of 1 or 2 channels are rounding errors.
@pytest.mark.parametrize(
    ("batch", "n_1", "n_2", "c_z", "c"), [(2, 3, 5, 4, 6), (1, 1, 1, 3, 1), (1, 9, 9, 8, 8)]
)
def test_triangle_edges(batch, n_1, n_2, c_z, c):
    mask, width = random_mask(batch, n_1, n_2), 4 * c + c_z
    leaves = (
        random(batch, n_1, n_2, c_z),
        random(c_z, seed=1),
        random(c_z, seed=2),
        random(width, c_z, seed=3),
        random(width, seed=4),
    )

    def call(operation, z, gamma, beta, weight, bias):
        return operation(
            z, NormWeights(gamma, beta, 1e-5), LinearWeights(weight, bias), mask, c_hidden=c
        )

    compare("triangle_edges", call, leaves, [True, False, False, True, True])


@pytest.mark.parametrize("is_outgoing", [True, False])
@pytest.mark.parametrize("has_dropout", [True, False])
@pytest.mark.parametrize(
    ("batch", "i", "j", "k", "c_z", "c"),
    [(2, 3, 5, 4, 4, 6), (1, 1, 1, 1, 1, 2), (1, 9, 11, 10, 16, 32)],
)
def test_triangle_update(batch, i, j, k, c_z, c, is_outgoing, has_dropout):
    shapes = [(i, k), (j, k)] if is_outgoing else [(k, i), (k, j)]
    a, b = (random(batch, c, *shape, seed=seed) for seed, shape in enumerate(shapes, start=1))
    leaves = [random(batch, i, j, c_z), a, b, random(batch, i, j, c_z, seed=3)]
    leaves += [random(c, seed=4), random(c, seed=5), random(c_z, c, seed=6), random(c_z, seed=7)]
    dropout = random_mask(batch, 1, j, c_z) / 0.7 if has_dropout else None

    def call(operation, z, a, b, gate, gamma, beta, weight, bias):
        return operation(
            z,
            (a, b, gate),
            NormWeights(gamma, beta, 1e-5),
            LinearWeights(weight, bias),
            dropout,
            is_outgoing=is_outgoing,
        )

    compare("triangle_update", call, leaves, [True] * 4 + [False] * 2 + [True] * 2)


@pytest.mark.parametrize(
    ("batch", "s", "i", "j", "c", "c_z"),
    [(2, 3, 4, 5, 2, 6), (1, 1, 1, 1, 1, 1), (1, 7, 9, 9, 4, 8)],
)
def test_outer_product_mean(batch, s, i, j, c, c_z):
    norm = random(batch, i, j, 1).abs() + 0.1
    leaves = (
        random(batch, i, j, c_z),
        random(batch, s, i, c, seed=1),
        random(batch, s, j, c, seed=2),
        random(c_z, c * c, seed=3),
        random(c_z, seed=4),
    )

    def call(operation, z, a, b, weight, bias):
        return operation(z, (a, b), LinearWeights(weight, bias), norm)

    compare("outer_product_mean", call, leaves, [True] * 5)


@pytest.mark.parametrize(("shape", "factor"), [((2, 3, 4, 5), 4), ((1, 1, 1, 1), 2), ((7, 8), 2)])
def test_transition(shape, factor):
    c, wide = shape[-1], factor * shape[-1]
    leaves = [random(*shape), random(c, seed=1), random(c, seed=2)]
    leaves += [
        random(wide, c, seed=3),
        random(wide, seed=4),
        random(c, wide, seed=5),
        random(c, seed=6),
    ]

    def call(operation, x, gamma, beta, w1, b1, w2, b2):
        return operation(
            x, NormWeights(gamma, beta, 1e-5), LinearWeights(w1, b1), LinearWeights(w2, b2)
        )

    compare("transition", call, leaves, [True, False, False, True, True, True, True])


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 2), (4, 1, 1, 8)])
def test_layer_norm(shape):
    leaves = random(*shape), random(shape[-1], seed=1), random(shape[-1], seed=2)
    compare(
        "layer_norm",
        lambda operation, x, w, b: operation(x, w, b, eps=1e-5),
        leaves,
        [True, False, False],
    )


@pytest.mark.parametrize(("shape", "c_out"), [((2, 3, 5), 4), ((1, 1, 3), 1), ((4, 1, 1, 8), 3)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("used_results", [(0, 1, 2), (1, 2), (2,), (1,)])
def test_projected_norm(shape, c_out, has_bias, used_results):
    c = shape[-1]
    leaves = [
        random(*shape),
        random(c, seed=1),
        random(c, seed=2),
        random(c_out, c, seed=3),
        *([random(c_out, seed=4)] if has_bias else []),
    ]

    def call(operation, x, gamma, beta, weight, bias=None):
        results = operation(x, NormWeights(gamma, beta, 1e-5), LinearWeights(weight, bias))
        # Every leaf gets a gradient, whichever results are used.
        return (
            *(results[number] for number in used_results),
            weight * 1.0,
            *(() if bias is None else (bias * 1.0,)),
        )

    compare("projected_norm", call, leaves, [True, False, False, True, True][: len(leaves)])


@pytest.mark.parametrize(("batch", "n", "heads"), [(2, 5, 3), (1, 1, 1)])
def test_invariant_point_attention(batch, n, heads):
    mask = torch.ones(batch, n)
    mask[:, n // 2 + 1 :] = 0.0
    leaves = [random(batch, n, heads, 4, seed=seed) for seed in range(3)]
    leaves += [
        random(batch, n, heads, 2, 3, seed=3),
        random(batch, n, heads, 2, 3, seed=4),
        random(batch, n, heads, 3, 3, seed=5),
    ]
    leaves += [
        random(batch, n, n, heads, seed=6),
        random(batch, n, n, 7, seed=7),
        random(heads, seed=8).abs(),
    ]
    names = ("q", "k", "v", "q_points", "k_points", "v_points", "bias", "z", "point_weights")

    def call(operation, *leaves):
        return operation(
            InvariantPointInputs(**dict(zip(names, leaves, strict=True))), mask=mask, mask_inf=1e5
        )

    compare("invariant_point_attention", call, leaves)


def test_distances_of_nearby_points_are_precise():
    points = 1e3 + torch.arange(4.0)[:, None] * 1e-2 * torch.ones(1, 6)
    found = squared_distances(points, points)
    expected = (points[:, None] - points[None]).double().square().sum(-1).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
