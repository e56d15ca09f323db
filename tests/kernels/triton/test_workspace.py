"""Workspaces found on device meta equal the bytes that the operations really allocate."""

import dataclasses
import functools
import gc

import pytest
import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile
from triton.runtime.interpreter import InterpretedFunction

from benchmark.perf.tools.kernel_cases import CaseMaker
from openfold_opt.kernels.operations import OPERATIONS, Operation
from openfold_opt.kernels.workspace import Workspace, workspace
from tests.support.synthetic_samples import tiny_config

META, CPU = torch.device("meta"), torch.device("cpu")
IMPLEMENTATIONS = {
    "reference": lambda operation: operation.reference,
    "cpu": Operation.for_cpu,
    "triton": Operation.for_triton,
}
SIZES = [(16, 8), (24, 12), (33, 9)]
"""Residues and MSA rows."""


@functools.cache
def cases_on(device, size):
    config = tiny_config()
    data = dataclasses.replace(config.data, crop_size=size[0], max_msa_clusters=size[1])
    config = dataclasses.replace(config, data=data)
    cases = CaseMaker(config, device=device, precision="fp32").cases()
    return {case.operation: case for case in cases}


OPERATIONS_WITH_CASES = list(cases_on(META, SIZES[0]))


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


def bytes_of(tensors, leaves):
    """Return the bytes of the storages of tensors that are not storages of leaves."""
    inputs = {x.untyped_storage().data_ptr() for x in leaves}
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(size for pointer, size in sizes.items() if pointer not in inputs)


def real_workspace(run, leaves):
    results, forward = largest_bytes(lambda: run(*leaves))
    results = results if isinstance(results, tuple) else (results,)
    d_results = [torch.ones_like(x) for x in results]
    gradients, backward = largest_bytes(lambda: torch.autograd.grad(results, leaves, d_results))
    return Workspace(
        forward=forward - bytes_of(results, leaves),
        backward=backward - bytes_of(gradients, (*leaves, *d_results)),
    )


@pytest.fixture
def no_launches(monkeypatch):
    """Skip the kernels: the interpreter keeps the arguments of the last one alive."""
    monkeypatch.setattr(InterpretedFunction, "run", lambda self, *args, **options: None)


@pytest.mark.compiler
@pytest.mark.usefixtures("on_cpu", "no_launches")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", OPERATIONS_WITH_CASES)
def test_workspace(name, implementation):
    for size in SIZES:
        case, meta = cases_on(CPU, size)[name], cases_on(META, size)[name]
        kernel = IMPLEMENTATIONS[implementation](OPERATIONS[case.operation])
        found = workspace(meta.call(kernel), meta.leaves)
        real = real_workspace(case.call(kernel), case.leaves)
        # PyTorch allocates a few numbers that do not exist on device meta.
        assert found.forward == pytest.approx(real.forward, rel=0.02, abs=64), (size, real)
        assert found.backward == pytest.approx(real.backward, rel=0.02, abs=64), (size, real)
