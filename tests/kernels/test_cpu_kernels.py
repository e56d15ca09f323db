"""The operations for a CPU against the plain ones: results and every gradient, also where they work in several pieces."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from openfold_opt.kernels.cpu import tiles
from openfold_opt.kernels.cpu.operations import OPERATIONS
from openfold_opt.kernels.interface import InvariantPointInputs
from openfold_opt.kernels.select import REFERENCE
from tests.kernels.agreement import assert_bfloat16_rule, assert_same, random, random_mask

pytestmark = pytest.mark.compiler


@pytest.fixture(autouse=True, params=[64, 2**20], ids=["pieces of one row", "pieces of cache size"])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", request.param)


@pytest.fixture(autouse=True)
def on_cpu():
    """`random` makes tensors on the GPU where there is one; these operations are for the other."""
    if torch.cuda.is_available():
        pytest.skip("the operations for a CPU are tested on machines without a GPU")


def compare(name, call, leaves, is_low=None):
    """call(operation) takes the leaves; is_low: which of them are bfloat16 where the precision is, None: not tested so."""
    assert_same(call(OPERATIONS[name]), call(REFERENCE[name]), leaves)
    if is_low is not None:
        assert_bfloat16_rule(call(OPERATIONS[name]), call(REFERENCE[name]), leaves, is_low)


def kept_by_the_same(call, leaves):
    """Shapes of what is kept for the backward pass, once results and gradients are the plain ones, under recomputation too."""

    def recomputed(*leaves):
        return checkpoint(call(OPERATIONS), *leaves, use_reentrant=False)

    assert_same(call(OPERATIONS), call(REFERENCE), leaves)
    assert_same(recomputed, call(REFERENCE), leaves)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        call(OPERATIONS)(*(leaf.requires_grad_() for leaf in leaves))
    return kept


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

    def call(operation):
        def run(x, w_in, b_in, w_out, b_out, bias=None):
            return operation(
                x,
                (w_in, b_in),
                (w_out, b_out),
                num_heads=heads,
                mask=mask,
                mask_inf=1e9,
                bias=None if bias is None else lambda: bias,
            )

        return run

    if batch:
        compare("self_attention", call, leaves, [True] * len(leaves))
    else:
        assert call(OPERATIONS["self_attention"])(*leaves).shape == (0, groups, n, c)


def test_self_attention_of_a_transposed_input():
    leaves = (
        random(1, 5, 4, 3),
        random(8, 3, seed=1),
        random(8, seed=2),
        random(3, 2, seed=3),
        random(3, seed=4),
    )
    mask = random_mask(1, 4, 5)

    def call(operation):
        return lambda x, w, b, v, d: operation(
            x.transpose(1, 2), (w, b), (v, d), num_heads=2, mask=mask, mask_inf=1e9
        )

    compare("self_attention", call, leaves)


# the gradient through a normalization of one or two channels is nothing but rounding
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

    def call(operation):
        return lambda z, gamma, beta, weight, bias: operation(
            z, (gamma, beta), (weight, bias), mask, c_hidden=c, eps=1e-5
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

    def call(operation):
        def run(z, a, b, gate, gamma, beta, weight, bias):
            return operation(
                z,
                (a, b, gate),
                (gamma, beta),
                (weight, bias),
                dropout,
                is_outgoing=is_outgoing,
                eps=1e-5,
            )

        return run

    compare("triangle_update", call, leaves, [True] * 4 + [False] * 2 + [True] * 2)


@pytest.mark.parametrize("is_outgoing", [True, False])
def test_triangle_update_computes_its_edges_again(is_outgoing):
    batch, n, c_z, c = 2, 5, 4, 6
    mask = random_mask(batch, n, n)
    leaves = [
        random(batch, n, n, c_z),
        random(c_z, seed=1),
        random(c_z, seed=2),
        random(4 * c + c_z, c_z, seed=3),
        random(4 * c + c_z, seed=4),
    ]
    leaves += [random(c, seed=5), random(c, seed=6), random(c_z, c, seed=7), random(c_z, seed=8)]

    def call(operations):
        def run(z, gamma, beta, weight, bias, *rest):
            edges = operations["triangle_edges"](
                z, (gamma, beta), (weight, bias), mask, c_hidden=c, eps=1e-5
            )
            return operations["triangle_update"](
                z, edges, rest[:2], rest[2:], None, is_outgoing=is_outgoing, eps=1e-5
            )

        return run

    kept = kept_by_the_same(call, leaves)
    assert (batch, c, n, n) not in kept and (batch, n, n, c_z) in kept


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

    def call(operation):
        return lambda z, a, b, weight, bias: operation(z, (a, b), (weight, bias), norm)

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

    def call(operation):
        return lambda x, gamma, beta, w1, b1, w2, b2: operation(
            x, (gamma, beta), (w1, b1), (w2, b2), eps=1e-5
        )

    compare("transition", call, leaves, [True, False, False, True, True, True, True])


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 2), (4, 1, 1, 8)])
def test_layer_norm(shape):
    leaves = random(*shape), random(shape[-1], seed=1), random(shape[-1], seed=2)
    compare(
        "layer_norm",
        lambda operation: lambda x, w, b: operation(x, w, b, eps=1e-5),
        leaves,
        [True, False, False],
    )


@pytest.mark.parametrize(("shape", "c_out"), [((2, 3, 5), 4), ((1, 1, 3), 1), ((4, 1, 1, 8), 3)])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("wanted", [(0, 1), (1,), (0,)])
def test_projected_norm(shape, c_out, has_bias, wanted):
    c = shape[-1]
    leaves = [
        random(*shape),
        random(c, seed=1),
        random(c, seed=2),
        random(c_out, c, seed=3),
        *([random(c_out, seed=4)] if has_bias else []),
    ]

    def call(operation):
        def run(x, gamma, beta, weight, bias=None):
            results = operation(x, (gamma, beta), (weight, bias), eps=1e-5)
            # every leaf has a gradient, whatever is wanted
            return (
                *(results[number] for number in wanted),
                weight * 1.0,
                *(() if bias is None else (bias * 1.0,)),
            )

        return run

    compare("projected_norm", call, leaves, [True, False, False, True, True][: len(leaves)])


@pytest.mark.parametrize("is_projected", [True, False])
@pytest.mark.parametrize("is_transposed", [True, False])
def test_self_attention_computes_its_input_again(is_projected, is_transposed):
    batch, groups, n, c, heads = 2, 3, 5, 6, 2
    mask = random_mask(batch, groups, n)
    shape = (batch, n, groups, c) if is_transposed else (batch, groups, n, c)
    leaves = [
        random(*shape),
        random(c, seed=1),
        random(c, seed=2),
        random(16, c, seed=4),
        random(16, seed=5),
        random(c, 4, seed=6),
        random(c, seed=7),
    ]
    leaves += [random(heads, c, seed=3)] if is_projected else []

    def call(operations):
        def run(z, gamma, beta, w_in, b_in, w_out, b_out, narrow=None):
            z = z.transpose(1, 2) if is_transposed else z
            if narrow is None:
                x, bias = (
                    operations["layer_norm"](z, gamma, beta, eps=1e-5),
                    random(batch, heads, n, n, seed=8),
                )
            else:
                x, projected = operations["projected_norm"](
                    z, (gamma, beta), (narrow, None), eps=1e-5
                )
                bias = random(batch, heads, n, n, seed=8) + projected.mean(1).movedim(
                    -1, 1
                ).unsqueeze(-2)
            weights = (w_in, b_in), (w_out, b_out)
            return operations["self_attention"](
                x, *weights, num_heads=heads, mask=mask, mask_inf=1e9, bias=lambda: bias
            )

        return run

    kept = kept_by_the_same(call, leaves)
    assert sum(shape.numel() == leaves[0].numel() for shape in kept) == 1, (
        "only the input of the normalization is kept, not its result"
    )


def test_a_normalized_input_that_was_written_over_is_kept():
    mask, weights = torch.ones(1, 3, 4), [random(16, 6), random(16), random(6, 4), random(6)]

    def call(operations):
        def run(z, gamma, beta):
            x = operations["layer_norm"](z, gamma, beta, eps=1e-5)
            with torch.no_grad():
                x.mul_(2.0)
            return operations["self_attention"](
                x, weights[:2], weights[2:], num_heads=2, mask=mask, mask_inf=1e9
            )

        return run

    assert_same(
        call(OPERATIONS),
        call(REFERENCE),
        [random(1, 3, 4, 6), random(6, seed=1), random(6, seed=2)],
    )


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
def test_what_is_not_finite_comes_out_again(name, bad):
    x, row, square = random(1, 2, 3, 4), random(4, seed=1), random(4, 4, seed=2)
    x[0, 1, 2, 3] = bad
    mask, edges = torch.ones(1, 2, 3), [random(1, 4, 2, 5, seed=3), random(1, 4, 3, 5, seed=4)]
    calls = {
        "layer_norm": lambda f: f(x, row, row, eps=1e-5),
        "projected_norm": lambda f: f(x, (row, row), (square, row), eps=1e-5)[1],
        "self_attention": lambda f: f(
            x, (random(16, 4), random(16)), (square, row), num_heads=2, mask=mask, mask_inf=1e9
        ),
        "triangle_edges": lambda f: f(
            x, (row, row), (random(20, 4), random(20)), mask, c_hidden=4, eps=1e-5
        )[0],
        "triangle_update": lambda f: f(
            x,
            (*edges, random(1, 2, 3, 4, seed=5)),
            (row, row),
            (square, row),
            None,
            is_outgoing=True,
            eps=1e-5,
        ),
        "transition": lambda f: f(
            x, (row, row), (random(8, 4), random(8)), (random(4, 8), row), eps=1e-5
        ),
        "outer_product_mean": lambda f: f(
            x, (random(1, 5, 2, 2), random(1, 5, 3, 2)), (square, row), torch.ones(1, 2, 3, 1)
        ),
    }
    found, expected = (calls[name](operations[name]) for operations in (OPERATIONS, REFERENCE))
    assert torch.equal(found.isfinite(), expected.isfinite()) and not found.isfinite().all()


def test_what_broadcasts_for_the_plain_versions_does_here():
    z, row, square = random(2, 3, 4, 6), random(6, seed=1), random(6, 6, seed=2)
    edges = random(2, 5, 3, 7, seed=3), random(2, 5, 4, 7, seed=4), random(2, 3, 4, 6, seed=5)
    for shape in ((1, 1, 4, 6), (2, 3, 1, 6), (2, 1, 1, 6)):

        def update(operation, dropout=random_mask(*shape)):
            return lambda z, *rest: operation(
                z, rest[:3], rest[3:5], rest[5:], dropout, is_outgoing=True, eps=1e-5
            )

        compare(
            "triangle_update",
            update,
            [z, *edges, random(5, seed=6), random(5, seed=7), random(6, 5, seed=8), row],
        )

    def mean(operation):
        return lambda z, a, b, weight, bias: operation(
            z, (a, b), (weight, bias), torch.full((2, 3, 1, 1), 2.0)
        )

    compare(
        "outer_product_mean", mean, [z, random(2, 5, 3, 2), random(2, 5, 4, 2), random(6, 4), row]
    )
    weights = random(24, 6, seed=3), random(24, seed=4), square, row
    for mask, bias in (
        (torch.ones(1, 3, 4), (2, 1, 1, 4)),
        (torch.ones(2, 1, 4), (1, 2, 4, 4)),
        (torch.ones(2, 3, 1), (2, 2, 1, 4)),
    ):

        def attend(operation, mask=mask):
            def run(x, w_in, b_in, w_out, b_out, bias):
                return operation(
                    x,
                    (w_in, b_in),
                    (w_out, b_out),
                    num_heads=2,
                    mask=mask,
                    mask_inf=1e9,
                    bias=lambda: bias,
                )

            return run

        compare("self_attention", attend, [z, *weights, random(*bias, seed=5)])


def test_without_templates_there_is_nothing_to_do():
    z, row, square, mask = (
        torch.zeros(0, 3, 3, 4, requires_grad=True),
        random(4),
        random(4, 4),
        torch.ones(0, 3, 3),
    )
    edges = OPERATIONS["triangle_edges"](
        z, (row, row), (random(20, 4), random(20)), mask, c_hidden=4, eps=1e-5
    )
    x = OPERATIONS["triangle_update"](
        z, edges, (row, row), (square, row), None, is_outgoing=True, eps=1e-5
    )
    x = OPERATIONS["transition"](
        x, (row, row), (random(8, 4), random(8)), (random(4, 8), row), eps=1e-5
    )
    x, bias = OPERATIONS["projected_norm"](
        OPERATIONS["layer_norm"](x, row, row, eps=1e-5), (row, row), (square, None), eps=1e-5
    )
    x = OPERATIONS["self_attention"](
        x,
        (random(16, 4), random(16)),
        (square, row),
        num_heads=4,
        mask=mask,
        mask_inf=1e9,
        bias=lambda: bias.movedim(-1, 1),
    )
    x.sum().backward()
    assert z.grad.shape == x.shape == (0, 3, 3, 4)


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

    def call(operation):
        return lambda *leaves: operation(
            InvariantPointInputs(**dict(zip(names, leaves, strict=True))), mask=mask, mask_inf=1e5
        )

    compare("invariant_point_attention", call, leaves)


def test_near_points_keep_the_digits_of_their_distance():
    points = 1e3 + torch.arange(4.0)[:, None] * 1e-2 * torch.ones(1, 6)
    from openfold_opt.kernels.cpu.invariant_point_attention import squared_distances

    found = squared_distances(points, points)
    expected = (points[:, None] - points[None]).double().square().sum(-1).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
