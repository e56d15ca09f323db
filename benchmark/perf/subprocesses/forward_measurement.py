"""Measure one forward pass of a model in this process: time, memory and a sample of its results.

The probes of `perf predict` use this module, also those that another interpreter runs with the
checkout of another project. Of this project, it needs only the counter of allocations.
"""

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from openfold_opt.kernels.workspace import AllocationCounter

COMPARED_ROWS = 8
"""Number of rows of pair representation and distogram that are compared."""

_NUM_PROFILED = 8
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Features = dict[str, Tensor]
"""Features of one chain and one pass, without dims of batch and passes, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class ForwardSettings:
    """Settings of a probe."""

    features: str
    """.npz file with the features of the chain."""
    warm_up_features: str
    """.npz file with the features of a short chain, which is predicted first."""
    weights: str
    """File of torch.save: parameter name -> tensor, with the names of the measured model."""
    results: str
    """.npz file to write."""
    blocks: int
    extra_blocks: int
    variant: str
    """Implementation of our operations, or the chunk setting of a peer."""
    device: str
    precision: str
    threads: int
    untimed: int
    """Number of forward passes at full size before the timed one."""
    counts: bool
    """Whether to count the bytes of live tensors, which takes time."""
    profiles: bool
    """Whether to print the operators that take most of the time."""
    memory_limit_bytes: int | None
    """Bytes that the process may allocate; None: no limit."""


@dataclass(frozen=True, kw_only=True)
class ForwardRun:
    """One forward pass."""

    seconds: float
    cpu_seconds: float
    """CPU time of all threads. Other processes change it less than `seconds`."""
    first_seconds: float | None
    """Time of the first of the untimed forward passes at full size, which may tune chunks."""
    base_bytes: int
    """Resident set right before the forward passes, with weights and features."""
    peak_bytes: int
    """Peak of the resident set during the timed forward pass."""
    counted_bytes: int | None
    """Peak of the bytes of live tensors that the forward pass created; None: not counted."""
    load: float
    """Load average of the machine over the minute before the end of the forward pass."""
    planned_bytes: int | None = None
    """What the program expected to be counted; None: it has no memory plan."""
    planned_resident_bytes: int | None = None
    """By how much it expected the resident set to grow; None: it has no memory plan, or a GPU."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that is ready to run."""

    run: Callable[[Any], Mapping[str, Tensor]]
    """Returns any of the results `positions` [N_res, 37, 3], `plddt` [N_res], and `pair` and
    `distogram` [N_res, N_res, ...]."""
    prepare: Callable[[Features], Any]
    """Convert features to the argument of `run`."""
    planned_bytes: Callable[[Any], tuple[int | None, int | None]] = lambda batch: (None, None)
    """Returns the planned bytes of the tensors that `run` creates and of the growth of the resident
    set, as in ForwardRun."""


def main(build: Callable[[ForwardSettings], Model]) -> None:
    """Measure the model that `build` returns; print the JSON of a ForwardRun in one line.

    The settings are the first argument of the process, as JSON. Exits with the reason if the model
    cannot be built.
    """
    settings = ForwardSettings(**json.loads(sys.argv[1]))
    torch.set_num_threads(settings.threads)
    if settings.memory_limit_bytes is not None:
        limits = (settings.memory_limit_bytes, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    try:
        with torch.no_grad():
            model = build(settings)
            run, results = measure(model, settings)
    except ValueError as error:
        sys.exit(f"{error}")
    print(json.dumps(dataclasses.asdict(run)), flush=True)
    np.savez(settings.results, **results)


def measure(model: Model, settings: ForwardSettings) -> tuple[ForwardRun, dict[str, np.ndarray]]:
    """Run the model on the short chain, then on the chain, and return the results of the last run.

    The run on the short chain loads libraries and initializes the device.
    """
    model.run(model.prepare(read_features(settings.warm_up_features)))
    batch = model.prepare(read_features(settings.features))
    is_cuda = settings.device == "cuda"
    _release_freed_memory()
    base = _resident_bytes()
    untimed = []
    for _ in range(settings.untimed):
        started = time.perf_counter()
        model.run(batch)
        _wait(is_cuda)
        untimed.append(time.perf_counter() - started)
    _release_freed_memory()
    _reset_peaks(is_cuda)
    allocated = torch.cuda.memory_allocated() if is_cuda else 0
    with contextlib.ExitStack() as stack:
        counter = None
        if settings.counts and not is_cuda:
            counter = stack.enter_context(AllocationCounter())
        profiler = stack.enter_context(_profiler(is_cuda)) if settings.profiles else None
        started, cpu_started = time.perf_counter(), time.process_time()
        outputs = model.run(batch)
        _wait(is_cuda)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    counted = None if counter is None else counter.largest
    if is_cuda:
        # The allocator of CUDA counts at no cost.
        counted = torch.cuda.max_memory_allocated() - allocated
    planned, planned_resident = model.planned_bytes(batch)
    run = ForwardRun(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        first_seconds=untimed[0] if untimed else None,
        base_bytes=base,
        peak_bytes=_peak_resident_bytes(),
        counted_bytes=counted,
        load=os.getloadavg()[0],
        planned_bytes=planned,
        planned_resident_bytes=planned_resident,
    )
    if profiler is not None:
        sort_by = "self_cuda_time_total" if is_cuda else "self_cpu_time_total"
        averages = profiler.key_averages()
        print(averages.table(sort_by=sort_by, row_limit=_NUM_PROFILED, max_name_column_width=40))
    return run, _sample(outputs)


def read_features(path: str) -> Features:
    """Read the features of one chain."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _sample(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the results as float32 arrays, and only the first rows of the large ones."""
    return {
        name: (value[:COMPARED_ROWS] if name in ("pair", "distogram") else value)
        .float()
        .cpu()
        .numpy()
        for name, value in outputs.items()
    }


def _profiler(is_cuda: bool) -> profile:
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_cuda else [])
    return profile(activities=activities)


def _wait(is_cuda: bool) -> None:
    if is_cuda:
        torch.cuda.synchronize()


def _release_freed_memory() -> None:
    """Return freed memory to the operating system, so that later allocations are seen."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset_peaks(is_cuda: bool) -> None:
    """Start new peaks of the resident set (Linux: proc(5), clear_refs) and of the GPU's memory."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
