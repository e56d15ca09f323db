"""Attention of a residual stream in Triton compared with the reference operations in a row."""

import pytest
import torch

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.projected_norm import projected_norm
from openfold_opt.kernels.reference.residual_norm import residual_norm
from openfold_opt.kernels.reference.self_attention import self_attention
from openfold_opt.kernels.triton.attention import normalized_attention
from openfold_opt.kernels.triton.residual_attention import residual_attention
from tests.support.kernel_agreement import DEVICE, assert_bfloat16_rule, assert_same, random
from tests.support.kernel_agreement import random_mask as mask_of

SIZES = [(1, 3, 5, 12, 2, 4), (2, 2, 17, 33, 1, 16), (1, 2, 64, 32, 4, 8), (1, 1, 1, 8, 2, 8)]
"""batch, groups, N, c, heads, channels of a head"""


def reference(x, norm, projection, output, *, bias=None, bias_projection=None, **options):
    """Compute the operations that residual_attention replaces."""
    if bias_projection is None:
        x, normalized = residual_norm(x, norm)
    else:
        x, normalized, projected = projected_norm(x, norm, bias_projection)
        bias = projected.movedim(-1, 1)
    get_bias = None if bias is None else lambda: bias
    return self_attention(normalized, projection, output, bias=get_bias, residual=x, **options)


def leaves_of(batch, groups, n, c, heads, c_head, *, own_bias=False):
    """Return x, parameters and the bias; with own_bias the weight of its projection."""
    inner = heads * c_head
    bias = random(heads, c, seed=8) if own_bias else random(batch, heads, n, n, seed=8)
    return (
        random(batch, groups, n, c),
        1.0 + 0.1 * random(c, seed=1),
        random(c, seed=2),
        random(4 * inner, c, seed=3) * c**-0.5,
        random(inner, seed=4),
        random(c, inner, seed=5) * inner**-0.5,
        random(c, seed=6),
        bias,
    )


def call(function, heads, mask, *, own_bias=False, view=lambda x: x, **options):
    """Return a function of the leaves; only the gates have a bias."""

    def run(x, gamma, beta, weight, gate_bias, weight_out, bias_out, bias=None):
        joined = torch.nn.functional.pad(gate_bias, (3 * len(gate_bias), 0))
        if bias is not None:
            options.update(
                {"bias_projection": LinearWeights(bias, None)} if own_bias else {"bias": bias}
            )
        return function(
            view(x),
            NormWeights(gamma, beta, 1e-5),
            LinearWeights(weight, joined),
            LinearWeights(weight_out, bias_out),
            num_heads=heads,
            mask=mask,
            mask_inf=1e9,
            **options,
        )

    return run


@pytest.fixture
def one_launch(monkeypatch):
    """Let the launch with the normalization take float32, in which its results can be compared."""
    monkeypatch.setattr(normalized_attention, "DTYPES", (torch.float32,))


def compare(leaves, heads, mask, **options):
    assert_same(
        call(residual_attention, heads, mask, **options),
        call(reference, heads, mask, **options),
        leaves,
        tolerance=5e-5,
    )
    with torch.no_grad():
        found, expected = (
            call(each, heads, mask, **options)(*leaves) for each in (residual_attention, reference)
        )
    torch.testing.assert_close(found, expected, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients(sizes):
    batch, groups, n, *_, heads, _ = sizes
    mask, leaves = mask_of(batch, groups, n), leaves_of(*sizes)
    compare(leaves, heads, mask)
    compare(leaves[:-1], heads, mask)


@pytest.mark.parametrize(
    ("batch", "n", "c", "heads"), [(1, 6, 12, 2), (2, 5, 16, 4), (1, 3, 8, 17)]
)
def test_own_bias(batch, n, c, heads):
    """More than 16 heads need a bias that projected_norm computes as a matrix product."""
    leaves = leaves_of(batch, n, n, c, heads, 4, own_bias=True)
    compare(leaves, heads, mask_of(batch, n, n), own_bias=True)


def test_strided_input_with_dropout():
    dropout = (random(1, 4, 1, 16, seed=9) > 0.0).float() * 2.0
    leaves, mask = leaves_of(2, 6, 4, 16, 2, 8), mask_of(2, 4, 6)
    leaves = (*leaves[:-1], random(2, 2, 6, 6, seed=8))
    compare(leaves, 2, mask, view=lambda x: x.transpose(1, 2), dropout=dropout)


def test_fully_masked_groups_have_the_reference_gradients():
    leaves = leaves_of(1, 2, 20, 16, 2, 16)
    compare(leaves, 2, torch.zeros(1, 2, 20, device=DEVICE))


ONE_LAUNCH_SIZES = [
    (2, 2, 17, 12, 2, 4),
    (1, 2, 64, 64, 1, 32),
    (1, 2, 70, 96, 2, 32),
    (1, 2, 128, 128, 1, 32),
    (1, 2, 130, 40, 1, 20),
    (1, 1, 256, 256, 1, 32),
    (1, 2, 1, 8, 2, 8),
]
"""batch, groups, N, c, heads, channels of a head; tiles that are full, and tiles that are not"""


@pytest.mark.usefixtures("one_launch")
@pytest.mark.parametrize("sizes", ONE_LAUNCH_SIZES)
def test_one_launch(sizes):
    batch, groups, n, *_, heads, _ = sizes
    mask, leaves = mask_of(batch, groups, n), leaves_of(*sizes)
    compare(leaves, heads, mask)
    if n <= 70:
        compare(leaves[:-1], heads, mask)
        compare(leaves, heads, torch.zeros_like(mask))


@pytest.mark.usefixtures("one_launch")
@pytest.mark.parametrize(("batch", "n", "c", "heads"), [(1, 6, 12, 2), (2, 5, 16, 4)])
def test_one_launch_with_own_bias(batch, n, c, heads):
    leaves = leaves_of(batch, n, n, c, heads, 4, own_bias=True)
    compare(leaves, heads, mask_of(batch, n, n), own_bias=True)


@pytest.mark.usefixtures("one_launch")
@pytest.mark.parametrize(
    "view",
    [lambda x: x.transpose(1, 2), lambda x: x.movedim(1, -1), lambda x: x[:, :, ::2]],
    ids=["transposed", "channels first", "every second"],
)
def test_one_launch_with_strided_input(view):
    x = random(2, 6, 4, 16)
    _, groups, n, c = view(x).shape
    dropout = (random(1, groups, 1, c, seed=9) > 0.0).float() * 2.0
    leaves = (x, *leaves_of(2, groups, n, c, 2, 8)[1:])
    compare(leaves, 2, mask_of(2, groups, n), view=view, dropout=dropout)


def test_large_logits_do_not_overflow(one_launch):
    """In a group whose keys are all masked, the reference rounds its logits to multiples of 64."""
    x, gamma, beta, weight, *rest, bias = leaves_of(1, 2, 12, 16, 2, 8)
    mask = mask_of(1, 3, 12)[:, 1:]
    assert mask.sum(-1).min() > 0
    leaves = (x, gamma, beta, 5.0 * weight, *rest, 30.0 * bias)
    with torch.no_grad():
        found, expected = (call(each, 2, mask)(*leaves) for each in (residual_attention, reference))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_one_launch_supports():
    def is_supported(n=8, c=16, c_head=8, dtype=torch.bfloat16, low=torch.bfloat16, view=None):
        x = torch.empty(1, 2, n, c, dtype=dtype, device="meta")
        x = x if view is None else view(x)
        weight = torch.empty(4 * 2 * c_head, c, dtype=low, device="meta")
        return normalized_attention.is_supported(x, LinearWeights(weight, weight[:, 0]), 2)

    assert is_supported() and is_supported(n=256, c=256, c_head=32)
    assert not is_supported(n=257) and not is_supported(c=257) and not is_supported(c_head=33)
    assert not is_supported(dtype=torch.float32) and not is_supported(low=torch.float32)
    assert not is_supported(dtype=torch.float32, low=torch.float32)
    assert not is_supported(view=lambda x: x.as_strided(x.shape, (0, 0, 2**29, 1)))


@pytest.mark.parametrize("own_bias", [False, True])
@pytest.mark.parametrize(("n", "c", "heads", "c_head"), [(20, 32, 2, 16), (33, 64, 2, 32)])
def test_bfloat16(n, c, heads, c_head, own_bias):
    leaves, mask = leaves_of(1, n, n, c, heads, c_head, own_bias=own_bias), mask_of(1, n, n)
    # The gradient of the logits sums to zero over the keys. Through the bias, that of beta is a sum
    # of rounding errors, here up to 2.4 (with the separate operations, too) times the reference's.
    assert_bfloat16_rule(
        call(residual_attention, heads, mask, own_bias=own_bias),
        call(reference, heads, mask, own_bias=own_bias),
        leaves,
        (True, False, False, True, True, True, True, True),
        slack=4.0 if own_bias else 2.0,
    )
