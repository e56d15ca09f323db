"""CPU kernels with values that are not finite, broadcasting, and empty batches."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from tests.support.cpu_comparison import CPU, REFERENCE, compare
from tests.support.kernel_agreement import random, random_mask

pytestmark = [pytest.mark.compiler, pytest.mark.usefixtures("tile_bytes", "on_cpu")]


@pytest.mark.parametrize(
    "name",
    [
        "layer_norm",
        "projected_norm",
        "self_attention",
        "triangle_edges",
        "triangle_update",
        "transition",
        "outer_product_mean",
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_propagate(name, bad):
    x, row, square = random(1, 2, 3, 4), random(4, seed=1), random(4, 4, seed=2)
    x[0, 1, 2, 3] = bad
    mask, edges = torch.ones(1, 2, 3), [random(1, 4, 2, 5, seed=3), random(1, 4, 3, 5, seed=4)]
    calls = {
        "layer_norm": lambda f: f(x, row, row, eps=1e-5),
        "projected_norm": lambda f: f(x, NormWeights(row, row, 1e-5), LinearWeights(square, row))[
            2
        ],
        "self_attention": lambda f: f(
            x,
            LinearWeights(random(16, 4), random(16)),
            LinearWeights(square, row),
            num_heads=2,
            mask=mask,
            mask_inf=1e9,
        ),
        "triangle_edges": lambda f: f(
            x,
            NormWeights(row, row, 1e-5),
            LinearWeights(random(20, 4), random(20)),
            mask,
            c_hidden=4,
        )[1],
        "triangle_update": lambda f: f(
            x,
            (*edges, random(1, 2, 3, 4, seed=5)),
            NormWeights(row, row, 1e-5),
            LinearWeights(square, row),
            None,
            is_outgoing=True,
        ),
        "transition": lambda f: f(
            x,
            NormWeights(row, row, 1e-5),
            LinearWeights(random(8, 4), random(8)),
            LinearWeights(random(4, 8), row),
        ),
        "outer_product_mean": lambda f: f(
            x,
            (random(1, 5, 2, 2), random(1, 5, 3, 2)),
            LinearWeights(square, row),
            torch.ones(1, 2, 3, 1),
        ),
    }
    found, expected = (calls[name](operations[name]) for operations in (CPU, REFERENCE))
    assert torch.equal(found.isfinite(), expected.isfinite()) and not found.isfinite().all()


def test_broadcasting_matches_the_reference():
    z, row, square = random(2, 3, 4, 6), random(6, seed=1), random(6, 6, seed=2)
    edges = random(2, 5, 3, 7, seed=3), random(2, 5, 4, 7, seed=4), random(2, 3, 4, 6, seed=5)
    for shape in ((1, 1, 4, 6), (2, 3, 1, 6), (2, 1, 1, 6)):
        dropout = random_mask(*shape)

        def update(operation, z, *rest, dropout=dropout):
            return operation(
                z,
                rest[:3],
                NormWeights(*rest[3:5], 1e-5),
                LinearWeights(*rest[5:]),
                dropout,
                is_outgoing=True,
            )

        compare(
            "triangle_update",
            update,
            [z, *edges, random(5, seed=6), random(5, seed=7), random(6, 5, seed=8), row],
        )

    def mean(operation, z, a, b, weight, bias):
        return operation(z, (a, b), LinearWeights(weight, bias), torch.full((2, 3, 1, 1), 2.0))

    compare(
        "outer_product_mean", mean, [z, random(2, 5, 3, 2), random(2, 5, 4, 2), random(6, 4), row]
    )
    weights = random(24, 6, seed=3), random(24, seed=4), square, row
    for mask, bias_shape in (
        (torch.ones(1, 3, 4), (2, 1, 1, 4)),
        (torch.ones(2, 1, 4), (1, 2, 4, 4)),
        (torch.ones(2, 3, 1), (2, 2, 1, 4)),
    ):

        def attend(operation, x, w_in, b_in, w_out, b_out, bias, mask=mask):
            return operation(
                x,
                LinearWeights(w_in, b_in),
                LinearWeights(w_out, b_out),
                num_heads=2,
                mask=mask,
                mask_inf=1e9,
                bias=lambda: bias,
            )

        compare("self_attention", attend, [z, *weights, random(*bias_shape, seed=5)])


def test_operations_accept_an_empty_batch():
    z, row, square, mask = (
        torch.zeros(0, 3, 3, 4, requires_grad=True),
        random(4),
        random(4, 4),
        torch.ones(0, 3, 3),
    )
    z_residual, *edges = CPU["triangle_edges"](
        z, NormWeights(row, row, 1e-5), LinearWeights(random(20, 4), random(20)), mask, c_hidden=4
    )
    x = CPU["triangle_update"](
        z_residual,
        edges,
        NormWeights(row, row, 1e-5),
        LinearWeights(square, row),
        None,
        is_outgoing=True,
    )
    x = CPU["transition"](
        x,
        NormWeights(row, row, 1e-5),
        LinearWeights(random(8, 4), random(8)),
        LinearWeights(random(4, 8), row),
    )
    _, x, bias = CPU["projected_norm"](
        CPU["layer_norm"](x, row, row, eps=1e-5),
        NormWeights(row, row, 1e-5),
        LinearWeights(square, None),
    )
    x = CPU["self_attention"](
        x,
        LinearWeights(random(16, 4), random(16)),
        LinearWeights(square, row),
        num_heads=4,
        mask=mask,
        mask_inf=1e9,
        bias=lambda: bias.movedim(-1, 1),
    )
    x.sum().backward()
    assert z.grad.shape == x.shape == (0, 3, 3, 4)
