"""Normalization, projection, gate, dropout and residual in Triton compared with the reference."""

import pytest
import torch
import torch.nn.functional as F

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.reference.layer_norm import layer_norm
from openfold_opt.kernels.triton import launching, normalized_residual
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random

EPS = 1e-5
IS_LOW = (True, True, False, False, True, True, True)
"""Which leaves are bfloat16 in training."""


def reference(residual, x, norm, projection, masks):
    normalized = layer_norm(x.movedim(1, -1), norm.weight, norm.bias, eps=norm.eps)
    update = F.linear(normalized.to(projection.weight.dtype), *projection)
    return dropout_residual(residual, update, *masks)


def call(function, mask, view=lambda x: x):
    """view: of residual and gate."""

    def run(residual, x, gamma, beta, weight, bias, gate):
        norm, projection = NormWeights(gamma, beta, EPS), LinearWeights(weight, bias)
        return function(view(residual), x, norm, projection, (mask, view(gate)))

    return run


def both(mask, view=lambda x: x):
    fused = normalized_residual.normalized_residual
    return call(fused, mask, view), call(reference, mask, view)


def leaves(c_in, c_out, *, rows=(2, 5, 6)):
    batch, *sizes = rows
    return (
        random(*rows, c_out),
        random(batch, c_in, *sizes, seed=1),
        1.0 + random(c_in, seed=2),
        random(c_in, seed=3),
        random(c_out, c_in, seed=4, scale=c_in**-0.5),
        random(c_out, seed=5),
        random(*rows, c_out, seed=6),
    )


def dropout(*shape):
    return (random(*shape, seed=9) > -0.5).float() * 1.25


@pytest.mark.parametrize("kind", ["none", "shared by rows", "shared by columns"])
def test_values_and_gradients(kind):
    shape = {"none": None, "shared by rows": (2, 1, 6, 20), "shared by columns": (2, 5, 1, 20)}
    mask = None if shape[kind] is None else dropout(*shape[kind])
    assert_same(*both(mask), leaves(40, 20))


@pytest.mark.parametrize(
    ("c_in", "c_out", "rows"), [(2, 1, (1, 1, 1)), (33, 128, (1, 9, 11)), (128, 64, (3, 1, 16))]
)
def test_odd_sizes(c_in, c_out, rows):
    assert_same(*both(None), leaves(c_in, c_out, rows=rows), tolerance=5e-5)


def test_more_tiles_than_programs(monkeypatch):
    """Each program adds its sums over several tiles, the last one incomplete."""
    monkeypatch.setattr(normalized_residual, "PROGRAMS", 3)
    mask = dropout(2, 1, 15, 20)
    assert_same(*both(mask), leaves(24, 20, rows=(2, 9, 15)))


def test_a_transposed_residual_and_a_gate_that_is_part_of_a_tensor():
    residual, *others, _ = leaves(24, 20)
    gates = random(2, 6, 5, 50, seed=7)
    tensors = (residual.transpose(1, 2).contiguous(), *others, gates)

    def view(x):
        return x.transpose(1, 2)[..., -20:]

    assert_same(*both(dropout(2, 1, 6, 20), view), tensors)


@pytest.mark.parametrize(("c_in", "c_out"), [(130, 20), (20, 130)])
def test_channels_that_do_not_fit_the_registers(c_in, c_out):
    """The backward pass of such layers has a launch for each part."""
    assert_same(*both(dropout(2, 1, 6, c_out)), leaves(c_in, c_out), tolerance=5e-5)


@pytest.mark.parametrize("channels", [128, 130])
def test_launches_of_a_step(channels):
    """Up to 128 channels, the launches are the forward pass, the backward pass, and two sums."""
    tensors = [x.to("meta").requires_grad_() for x in leaves(channels, channels)]
    launched = []
    with launching.launches_on_meta(lambda *launch: launched.append(launch)):
        result = call(normalized_residual.normalized_residual, None)(*tensors)
        torch.autograd.grad(result, tensors, torch.empty_like(result))
    kernels = [kernel for kernel, *_ in launched]
    assert (normalized_residual.gradient_kernel in kernels) == (channels <= 128)
    assert channels > 128 or len(kernels) == 4


@pytest.mark.parametrize("has_mask", [False, True])
def test_bfloat16(has_mask):
    mask = dropout(2, 1, 6, 64) if has_mask else None
    assert_bfloat16_rule(*both(mask), leaves(32, 64), IS_LOW)
