"""Backward pass of a normalization with a wide projection in Triton, compared with autograd."""

import pytest
import torch
import torch.nn.functional as F

from openfold_opt.kernels.triton.wide_projection.wide_projection import (
    wide_projection_backward,
    wide_projection_sums,
)
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random


class _Fused(torch.autograd.Function):
    """Gradients by the kernel; the results are those of _expected."""

    @staticmethod
    def forward(ctx, view, first_sum, x, gamma, beta, weight, bias, narrow_weight):
        ctx.save_for_backward(x, gamma, beta, weight, bias, narrow_weight)
        ctx.view, ctx.first_sum = view, first_sum
        return _expected(view, first_sum, x, gamma, beta, weight, bias, narrow_weight)

    @staticmethod
    def backward(ctx, added, dprojected, dnarrow=None):
        x, gamma, beta, weight, bias, narrow_weight = ctx.saved_tensors
        full, rows = F.pad(bias, (ctx.first_sum, 0)), dprojected.flatten(0, -2)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            viewed = ctx.view(leaf)
        dx, y, partial = wide_projection_backward(
            *(rows, weight, viewed.detach(), gamma, beta, 1e-5, ctx.first_sum, added),
            *(None if dnarrow is None else dnarrow.flatten(1), narrow_weight),
        )
        (dgamma, dbeta), dbias, dnarrow_weight = wide_projection_sums(
            partial, gamma, full, ctx.first_sum, narrow_weight
        )
        assert not dbias[: ctx.first_sum].any()
        return (
            *(None, None, *torch.autograd.grad(viewed, leaf, dx), dgamma, dbeta, rows.t() @ y),
            *(dbias[ctx.first_sum :], None if narrow_weight is None else dnarrow_weight),
        )


def _expected(view, first_sum, x, gamma, beta, weight, bias, narrow_weight):
    x = view(x)
    normalized = F.layer_norm(x.float(), gamma.shape, gamma.float(), beta.float()).to(x.dtype)
    projected = F.linear(normalized.to(weight.dtype), weight, F.pad(bias, (first_sum, 0)))
    if narrow_weight is None:
        return x * 1.0, projected
    return x * 1.0, projected, (normalized.to(weight.dtype) @ narrow_weight.t()).movedim(-1, 0)


def call(function, first_sum, view=lambda x: x):
    return lambda *leaves: function(view, first_sum, *leaves, *[None] * (6 - len(leaves)))


def leaves_of(shape, width, first_sum, c_out):
    c = shape[-1]
    leaves = (
        random(*shape),
        1.0 + 0.1 * random(c, seed=1),
        random(c, seed=2),
        random(width, c, seed=3, scale=c**-0.5),
        random(width - first_sum, seed=4),
    )
    return (*leaves, random(c_out, c, seed=5, scale=c**-0.5)) if c_out else leaves


@pytest.mark.parametrize("c_out", [0, 4])
@pytest.mark.parametrize(
    ("shape", "width", "first_sum"),
    [
        ((2, 3, 5, 64), 64, 48),
        ((7, 100), 20, 15),
        ((1, 1, 12), 40, 30),
        ((3, 67, 33), 128, 96),
        ((2, 90, 128), 128, 96),
        ((130, 256), 64, 48),
        ((5, 16), 24, 0),
        ((5, 16), 24, 23),
    ],
)
def test_gradients(shape, width, first_sum, c_out):
    leaves = leaves_of(shape, width, first_sum, c_out)
    assert_same(call(_Fused.apply, first_sum), call(_expected, first_sum), leaves)


@pytest.mark.parametrize("c_out", [0, 16])
@pytest.mark.parametrize(
    "view",
    [lambda x: x.transpose(1, 2), lambda x: x[:, ::2], lambda x: x[:, :1].expand(-1, 4, -1, -1)],
    ids=["transposed", "every second", "expanded"],
)
def test_strided_input(view, c_out):
    leaves = leaves_of((2, 6, 5, 24), 32, 24, c_out)
    assert_same(call(_Fused.apply, 24, view), call(_expected, 24, view), leaves)


def test_more_parts_than_a_program_reads_at_a_time():
    leaves = leaves_of((513 * 64, 16), 16, 12, 0)
    assert_same(call(_Fused.apply, 12), call(_expected, 12), leaves, tolerance=1e-4)


@pytest.mark.parametrize("c_out", [0, 4])
@pytest.mark.parametrize("c", [128, 256])
def test_bfloat16(c, c_out):
    leaves = leaves_of((3, 50, c), 128, 96, c_out)
    is_low = (True, False, False, True, True, True)[: len(leaves)]
    assert_bfloat16_rule(call(_Fused.apply, 96), call(_expected, 96), leaves, is_low)
