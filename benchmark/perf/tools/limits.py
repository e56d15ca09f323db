"""Time functions, and measure the speed of large matrix products and copies on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.precision import matmul_precision

_CPU_SIZE, _GPU_SIZE = 2048, 8192
"""Rows and columns of the matrices."""
_CPU_BYTES, _GPU_BYTES = 2**28, 2**31
"""Size of the tensor to copy."""

_HEAD_START_CYCLES = 500_000_000
"""GPU clock cycles, about 0.3 s, in which the host enqueues the runs."""
_FLUSH_BYTES = 2**28
"""Larger than the caches of a GPU."""


def measure_matmul(precision: str, *, device: str, threads: int) -> float:
    """Return the FLOP/s of a square matrix product in one of PRECISIONS."""
    where = resolve_device(device, local_rank=0)
    torch.set_num_threads(threads)
    size = _GPU_SIZE if where.type == "cuda" else _CPU_SIZE
    a, b = (
        torch.randn(
            size, size, device=where, dtype=torch.bfloat16 if precision == "bf16" else torch.float32
        )
        for _ in range(2)
    )
    with matmul_precision(precision):
        return 2.0 * size**3 / best_seconds(lambda: torch.mm(a, b), device=where)


def measure_copy(*, device: torch.device) -> float:
    """Return the bytes per second, read plus written, of a copy far larger than the caches."""
    source = torch.zeros((_GPU_BYTES if device.type == "cuda" else _CPU_BYTES) // 4, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.nbytes / best_seconds(lambda: target.copy_(source), device=device)


def best_seconds(work: Callable[[], object], *, device: torch.device, repeats: int = 10) -> float:
    """Return the shortest of several runs in seconds, after two untimed ones."""
    return min(all_seconds(work, device=device, repeats=repeats))


def all_seconds(work: Callable[[], object], *, device: torch.device, repeats: int) -> list[float]:
    """Return the seconds of `repeats` runs, after two untimed ones; on a GPU from CUDA events."""
    for _ in range(2):
        work()
    if device.type != "cuda":
        return [_on_cpu(work) for _ in range(repeats)]
    # The GPU first sleeps, so that the host enqueues the runs ahead of it and their times do not
    # include waits for the host. Clearing `flush` evicts the caches.
    torch.cuda._sleep(_HEAD_START_CYCLES)
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device)
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(repeats)
    ]
    for begin, end in events:
        flush.zero_()
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) * 1e-3 for begin, end in events]


def _on_cpu(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
