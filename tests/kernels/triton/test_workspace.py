"""Workspaces found on device meta equal the bytes that the operations really allocate."""

import dataclasses
import functools
import gc

import pytest
import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from triton.runtime.interpreter import InterpretedFunction

from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.operations import OPERATIONS, residual_attention_workspace
from openfold_opt.kernels.reference.self_attention import (
    ResidualAttentionShapes,
    SelfAttentionShapes,
)
from openfold_opt.kernels.reference.weight_update import WeightUpdateShapes
from openfold_opt.kernels.triton.residual_attention import residual_attention
from openfold_opt.kernels.workspace import Workspace
from openfold_opt.train.operation_shapes import operations_of_step
from tests.support.prediction_shapes import prediction_shapes
from tests.support.synthetic_samples import tiny_config

CPU = torch.device("cpu")
IMPLEMENTATIONS = ("reference", "cpu", "triton")
SIZES = [(16, 8), (24, 12), (33, 9)]
"""Residues and MSA rows."""


@functools.cache
def shapes_at(size):
    """Return the shapes of each operation at one place in the model."""
    config = tiny_config()
    data = dataclasses.replace(config.data, crop_size=size[0], max_msa_clusters=size[1])
    config = dataclasses.replace(config, data=data)
    found = {place.operation: place.shapes for place in reversed(operations_of_step(config))}
    found["weight_update"] = WeightUpdateShapes(num_parameters=100 * size[0])
    return found | prediction_shapes(size[0])


def largest_bytes(function):
    """Return the result of a function, and the most bytes that it allocated at one time.

    Frees of memory that was allocated before do not count.
    """
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = function()
    total = largest = 0
    own = set()
    for event in sorted(allocations(profiler), key=lambda event: event.start_time_ns):
        pointer, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            own.add(pointer)
            total += size
        elif pointer in own:
            own.remove(pointer)
            total += size
        largest = max(largest, total)
    return result, largest


def allocations(profiler):
    """Yield the events of the allocator, in any order."""
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            yield event


def bytes_of(tensors, inputs):
    """Return the bytes of the storages of tensors that are not storages of inputs."""
    inputs = {x.untyped_storage().data_ptr() for x in inputs}
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(size for pointer, size in sizes.items() if pointer not in inputs)


def real_workspace(run, arguments):
    leaves = arguments.leaves
    inputs = (*leaves, *arguments.others, *arguments.updated)
    with torch.no_grad():
        results, inference = largest_bytes(lambda: run(*leaves))
    results = results if isinstance(results, tuple) else (results,)
    inference -= bytes_of(results, inputs)
    results, forward = largest_bytes(lambda: run(*leaves))
    results = results if isinstance(results, tuple) else (results,)
    forward -= bytes_of(results, inputs)
    if not leaves:
        return Workspace(inference=inference, forward=forward, backward=0)
    d_results = [torch.ones_like(x) for x in results]
    gradients, backward = largest_bytes(lambda: torch.autograd.grad(results, leaves, d_results))
    backward -= bytes_of(gradients, (*leaves, *d_results))
    return Workspace(inference=inference, forward=forward, backward=backward)


@pytest.fixture
def no_launches(monkeypatch):
    """Skip the kernels: the interpreter keeps the arguments of the last one alive."""
    monkeypatch.setattr(InterpretedFunction, "run", lambda self, *args, **options: None)


@pytest.mark.compiler
@pytest.mark.usefixtures("on_cpu", "no_launches")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_workspace(name, implementation):
    operation = OPERATIONS[name]
    for size in SIZES:
        shapes = shapes_at(size)[name]
        arguments = shapes.arguments(TensorMaker(device=CPU, dtype=torch.float32))
        found = operation.workspace(shapes, torch.float32, implementation=implementation)
        run = arguments.call(operation.implementation(implementation))
        real = real_workspace(run, arguments)
        # PyTorch allocates a few numbers that do not exist on device meta.
        for direction, expected in vars(real).items():
            assert getattr(found, direction) == pytest.approx(expected, rel=0.02, abs=64), (
                direction,
                size,
            )


@pytest.mark.usefixtures("on_cpu", "no_launches")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_workspace_of_residual_attention(dtype):
    """In bfloat16 the normalization is within the launch of the attention."""
    sizes = {"batch": 1, "groups": 9, "length": 24, "c": 32, "num_heads": 4, "c_head": 8}
    shapes = ResidualAttentionShapes(**sizes, has_bias=True)
    found = residual_attention_workspace(SelfAttentionShapes(**sizes, has_bias=True), dtype)
    arguments = shapes.arguments(TensorMaker(device=CPU, dtype=dtype))
    real = real_workspace(arguments.call(residual_attention), arguments)
    for direction, expected in vars(real).items():
        # Matrix products of bfloat16 on a CPU allocate memory of their own.
        if dtype == torch.float32 or direction != "backward":
            assert getattr(found, direction) == pytest.approx(expected, rel=0.02, abs=64), direction
    if dtype == torch.bfloat16:
        values = 9 * 24 * 32 * 2
        assert values <= found.inference < 2 * values and found.forward >= 5 * values
