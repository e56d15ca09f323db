"""Count, and on request time, the PyTorch calls of code on a CPU, in groups of similar size.

A call on a CPU costs time on the host, then moves bytes and computes. Most operators iterate over
their tensors in inner loops of elements at fixed distances. Short ones, such as those over three
coordinates, take longer than the bytes. A batched product has one loop for each matrix.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.perf.tools.counting import bytes_of, flops_of
from openfold_opt.train.graphs.graph_memory import launches_nothing

Direction = Literal["forward", "backward"]

VIEW = "view"
"""Name of all calls that neither read nor write elements."""
_GROUPS_PER_OCTAVE = 3


@dataclass(frozen=True, kw_only=True)
class CallGroup:
    """Similar calls of one operator."""

    operator: str
    """Name in PyTorch, or VIEW."""
    direction: Direction
    calls: int
    bytes: float
    """Bytes read and written by a call, mean of the group as all that follow."""
    flops: float
    """Operations of matrix products."""
    loops: float
    """Inner loops."""
    seconds: float = 0.0
    """Measured time; 0 if the calls were only counted."""


@dataclass(frozen=True, kw_only=True)
class TimedCall:
    """A call of an operator, as in CallGroup."""

    operator: str
    direction: Direction
    bytes: int = 0
    flops: int = 0
    loops: int = 0
    seconds: float = 0.0


def count_calls(run: Callable[[], object]) -> list[CallGroup]:
    """Run once on device meta, and return the groups of its calls."""
    with torch.device("meta"), _Recorder() as recorder:
        run()
    return [dataclasses.replace(group, seconds=0.0) for group in grouped([recorder.calls])]


def record_calls(run: Callable[[], object]) -> list[TimedCall]:
    """Run on the CPU, and return all calls with their times."""
    with _Recorder() as recorder:
        run()
    return recorder.calls


class _Recorder(TorchDispatchMode):
    """Dispatch mode that records the calls while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[TimedCall] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        is_forward = torch._C._current_autograd_node() is None
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - started
        direction: Direction = "forward" if is_forward else "backward"
        if launches_nothing(func):
            self.calls.append(TimedCall(operator=VIEW, direction=direction, seconds=seconds))
            return result
        flops = flops_of(func, args, kwargs, result)
        tensors = [x for x in tree_leaves((result, args, kwargs)) if isinstance(x, Tensor)]
        self.calls.append(
            TimedCall(
                operator=func._schema.name.removeprefix("aten::"),
                direction=direction,
                bytes=bytes_of((args, kwargs, result)),
                flops=flops,
                loops=_num_matrices(result) if flops else num_loops(tensors),
                seconds=seconds,
            )
        )
        return result


def num_loops(tensors: Sequence[Tensor]) -> int:
    """Return the inner loops over tensors that are read and written together.

    The first tensor determines the order of the dims. Dims over which all tensors advance as one
    are one loop. Tensors that cannot be expanded to the largest one are ignored.
    """
    if not tensors:
        return 0
    largest = max(tensors, key=Tensor.numel)
    used = [x for x in tensors if _can_expand(x, largest)]
    dims = [dim for dim, size in enumerate(largest.shape) if size > 1]
    if largest.numel() == 0 or not dims:
        return min(1, largest.numel())
    strides = [_strides(x, largest) for x in used]
    dims.sort(key=lambda dim: [each[dim] for each in strides])
    length = largest.shape[dims[0]]
    for inner, outer in zip(dims, dims[1:]):
        if any(each[outer] != each[inner] * largest.shape[inner] for each in strides):
            break
        length *= largest.shape[outer]
    return largest.numel() // length


def _can_expand(x: Tensor, largest: Tensor) -> bool:
    sizes = zip(reversed(x.shape), reversed(largest.shape))
    return x.dim() <= largest.dim() and all(a in (1, b) for a, b in sizes)


def _strides(x: Tensor, largest: Tensor) -> list[int]:
    own = [stride if size > 1 else 0 for size, stride in zip(x.shape, x.stride())]
    return [0] * (largest.dim() - x.dim()) + own


def _num_matrices(result: Any) -> int:
    """Return the matrices of a product's result."""
    return math.prod(result.shape[:-2]) if isinstance(result, Tensor) else 1


def grouped(runs: Sequence[Sequence[TimedCall]]) -> list[CallGroup]:
    """Return the groups of equal runs, with the median time of each call.

    Raises:
        ValueError: The runs have different calls.
    """
    if len({len(calls) for calls in runs}) > 1:
        raise ValueError(f"found {[len(calls) for calls in runs]} calls; expected equal runs")
    sums: dict[tuple, list[float]] = {}
    for same in zip(*runs, strict=True):
        call = same[0]
        sizes = (call.bytes, call.flops, call.loops)
        key = (call.operator, call.direction, *map(_bin, sizes))
        total = sums.setdefault(key, [0.0] * 5)
        seconds = statistics.median(each.seconds for each in same)
        for index, value in enumerate((1, *sizes, seconds)):
            total[index] += value
    return [
        CallGroup(
            operator=key[0],
            direction=key[1],
            calls=int(calls),
            bytes=size / calls,
            flops=flops / calls,
            loops=loops / calls,
            seconds=seconds / calls,
        )
        for key, (calls, size, flops, loops, seconds) in sums.items()
    ]


def _bin(value: int) -> int:
    return round(_GROUPS_PER_OCTAVE * math.log2(value)) if value else -1
