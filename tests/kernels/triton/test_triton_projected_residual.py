"""Projection, gate, dropout and residual in Triton compared with the reference."""

import math

import pytest
import torch
import torch.nn.functional as F

from openfold_opt.kernels.interface import LinearWeights
from openfold_opt.kernels.reference.dropout_residual import dropout_residual
from openfold_opt.kernels.triton import launching, projected_residual_gradient
from openfold_opt.kernels.triton.projected_residual import projected_residual
from tests.support.kernel_agreement import assert_bfloat16_rule, assert_same, random


def reference(residual, x, projection, mask, gate=None):
    return dropout_residual(residual, F.linear(x, *projection), mask, gate)


def call(function, mask, view=lambda x: x):
    """view: of residual and gate."""

    def run(residual, x, weight, bias, gate=None):
        gate = None if gate is None else view(gate)
        return function(view(residual), x, LinearWeights(weight, bias), mask, gate)

    return run


def leaves(c_in, c_out, *, rows=(2, 5, 6), has_gate=True):
    tensors = (
        random(*rows, c_out),
        random(*rows, c_in, seed=1),
        random(c_out, c_in, seed=2, scale=c_in**-0.5),
        random(c_out, seed=3),
        random(*rows, c_out, seed=4),
    )
    return tensors if has_gate else tensors[:-1]


def dropout(*shape):
    return (random(*shape, seed=9) > -0.5).float() * 1.25


@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("kind", ["none", "shared by rows", "shared by columns"])
def test_values_and_gradients(kind, has_gate):
    shape = {"none": None, "shared by rows": (2, 1, 6, 20), "shared by columns": (2, 5, 1, 20)}
    mask = None if shape[kind] is None else dropout(*shape[kind])
    tensors = leaves(40, 20, has_gate=has_gate)
    assert_same(call(projected_residual, mask), call(reference, mask), tensors)


@pytest.mark.parametrize(
    ("c_in", "c_out", "rows"), [(1, 1, (1, 1, 1)), (33, 150, (1, 9, 11)), (70, 64, (3, 1, 50))]
)
def test_odd_sizes(c_in, c_out, rows):
    tensors = leaves(c_in, c_out, rows=rows)
    assert_same(call(projected_residual, None), call(reference, None), tensors)


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("c_in", [16, 70, 150])
def test_more_tiles_than_programs(c_in, has_mask, monkeypatch):
    """Each program adds its sums over several tiles, for a block of the input channels."""
    monkeypatch.setattr(projected_residual_gradient, "PROGRAMS", 6)
    mask = dropout(2, 1, 15, 20) if has_mask else None
    tensors = leaves(c_in, 20, rows=(2, 9, 15), has_gate=False)
    assert_same(call(projected_residual, mask), call(reference, mask), tensors)


@pytest.mark.parametrize("c_out", [256, 260])
def test_channels_that_do_not_fit_the_registers(c_out):
    """The backward pass of more than 256 output channels has a launch for each part."""
    tensors = leaves(16, c_out, rows=(1, 3, 4), has_gate=False)
    mask = dropout(1, 1, 4, c_out)
    assert_same(call(projected_residual, mask), call(reference, mask), tensors)


@pytest.mark.parametrize("c_out", [256, 260])
def test_launches_of_a_step(c_out):
    """Without a gate, the launches are the forward pass, the backward pass, and the sums."""
    tensors = [x.to("meta").requires_grad_() for x in leaves(16, c_out, has_gate=False)]
    launched = []
    with launching.launches_on_meta(lambda *launch: launched.append(launch)):
        result = call(projected_residual, None)(*tensors)
        torch.autograd.grad(result, tensors, torch.empty_like(result))
    kernels = [kernel for kernel, *_ in launched]
    assert len(kernels) == 3
    assert (projected_residual_gradient.gradient_kernel in kernels) == (c_out <= 256)


def test_a_transposed_residual_keeps_its_layout():
    mask = dropout(2, 1, 6, 20)
    residual, x, weight, bias, gate = leaves(24, 20)
    tensors = (residual.transpose(1, 2).contiguous(), x, weight, bias, gate.transpose(1, 2))

    def view(x):
        return x.transpose(1, 2)

    assert_same(call(projected_residual, mask, view), call(reference, mask, view), tensors)
    result = projected_residual(view(tensors[0]), x, LinearWeights(weight, bias), mask)
    assert result.stride() == view(tensors[0]).stride()


def test_a_residual_and_a_gate_that_are_parts_of_tensors():
    residual, x, weight, bias, _ = leaves(24, 20, rows=(2, 3, 6))
    whole, gates = random(2, 5, 6, 20, seed=5), random(2, 3, 6, 50, seed=6)

    def part(function):
        def run(whole, x, weight, bias, gates):
            projection = LinearWeights(weight, bias)
            return function(whole[:, 1:4], x, projection, None, gates[..., 30:])

        return run

    tensors = (whole, x, weight, bias, gates)
    assert_same(part(projected_residual), part(reference), tensors)


def test_without_gradient():
    residual, x, weight, bias, gate = leaves(24, 20)
    with torch.no_grad():
        found = projected_residual(residual, x, LinearWeights(weight, bias), None, gate)
    expected = reference(residual, x, LinearWeights(weight, bias), None, gate)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filling_programs", [1, 148])
@pytest.mark.parametrize("has_gate", [False, True])
def test_bfloat16(has_gate, filling_programs, monkeypatch):
    """The blocks have 128 channels if one program is enough, and 64 if it is not."""
    monkeypatch.setattr(launching, "FILLING_PROGRAMS", filling_programs)
    mask = dropout(2, 1, 6, 128)
    tensors = leaves(64, 128, has_gate=has_gate)
    assert_bfloat16_rule(
        call(projected_residual, mask), call(reference, mask), tensors, (True,) * len(tensors)
    )


@pytest.mark.parametrize(
    ("num_rows", "c_out", "expected"),
    [(65_536, 128, 128), (9_472, 128, 128), (9_408, 128, 64), (8_192, 128, 64), (64, 32, 32)],
)
def test_blocks_get_smaller_where_multiprocessors_would_be_idle(num_rows, c_out, expected):
    x = torch.empty(1, 1, num_rows, 64, dtype=torch.bfloat16, device="meta")
    residual, weight, bias = x.new_empty(1, 1, num_rows, c_out), x.new_empty(c_out, 64), x[0, 0, 0]
    launched = []
    with launching.launches_on_meta(lambda *launch: launched.append(launch)):
        projected_residual(residual, x, LinearWeights(weight, bias), None)
    ((_, grid, _, options),) = launched
    assert options["BLOCK_OUT"] == expected
    assert math.prod(grid) >= launching.FILLING_PROGRAMS or expected <= 64
