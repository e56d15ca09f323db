"""Where the time of a step goes: ranges named as the modules in PyTorch's profiler, their sums, and a trace that Perfetto opens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.parallel.chunks import PendingChunks

_DEEPEST = 3
"""Parts of a module's name that a range may have: evoformer_stack.core.tri_att_start is as deep as it goes."""
_LAUNCHES = (
    "cudaLaunchKernel",
    "cuLaunchKernel",
    "cudaGraphLaunch",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
)


def range_name(module_name: str) -> str | None:
    """Name of a module's range, the same for all blocks of a stack; None where it lies too deep to have one."""
    name = re.sub(r"\.blocks\.\d+", "", module_name)
    is_block = re.search(r"\.blocks(\.\d+)?$", module_name) is not None
    return None if not name or is_block or name.count(".") >= _DEEPEST else name


@contextmanager
def module_ranges(model: nn.Module) -> Iterator[None]:
    """While open, forward and backward of the modules are ranges "NAME forward" and "NAME backward", for NVTX too on a GPU.

    Single linear layers and normalizations have none of their own.
    """
    handles = []
    for module_name, module in model.named_modules():
        name = range_name(module_name)
        if name is None or isinstance(module, (nn.ModuleList, Linear, LayerNorm)):
            continue
        ranges = _ModuleRanges(name)
        handles += [
            module.register_forward_pre_hook(ranges.before),
            module.register_forward_hook(ranges.after),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _ModuleRanges:
    """Hooks that open and close both ranges of a module, whose arguments and results may be tensors or pieces that come in turn.

    The backward range is open from the gradient of a result to the last one of an argument.
    """

    def __init__(self, name: str) -> None:
        self._forward, self._backward = _Range(f"{name} forward"), _Range(f"{name} backward")

    def before(self, module: nn.Module, args: tuple) -> tuple:
        self._forward.enter()
        is_waiting: list[bool] = []

        def close() -> None:
            is_waiting.pop()
            if not is_waiting:
                self._backward.leave()

        def mark(x: Any) -> Any:
            if isinstance(x, (PendingChunks, tuple)):
                chunks = map(mark, x)
                return tuple(chunks) if isinstance(x, tuple) else chunks
            if isinstance(x, Tensor) and x.requires_grad:
                is_waiting.append(True)
            return _marked(x, close)

        return tuple(mark(x) for x in args)

    def after(self, module: nn.Module, args: tuple, result: Any) -> Any:
        self._forward.leave()
        return (
            self._each(result)
            if isinstance(result, Iterator)
            else _marked(result, self._backward.enter)
        )

    def _each(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        """The forward range is open while the module works on a piece."""
        self._forward.enter()
        for chunk in chunks:
            self._forward.leave()
            yield _marked(chunk, self._backward.enter)
            self._forward.enter()
        self._forward.leave()


def _marked(x: Any, action: Callable[[], None]) -> Any:
    """x itself; where it is a tensor, or a tuple of some, `action` is called when its gradient is there."""
    if isinstance(x, tuple):
        return tuple(_marked(each, action) for each in x)
    return _Mark.apply(x, action) if isinstance(x, Tensor) and x.requires_grad else x


class _Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, action: Callable[[], None]) -> Tensor:
        ctx.action = action
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.action()
        return grad, None


class _Range:
    """A range that is opened and closed. A stack of blocks enters and leaves its modules in turn, never twice at once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: Any = None

    def enter(self) -> None:
        self.leave()
        self._open = record_function(self._name)
        self._open.__enter__()
        if torch.cuda.is_available():
            torch.cuda.nvtx.range_push(self._name)

    def leave(self) -> None:
        # a module whose inputs need no gradient has a backward that begins and is never said to end
        if self._open is None:
            return
        if torch.cuda.is_available():
            torch.cuda.nvtx.range_pop()
        self._open.__exit__(None, None, None)
        self._open = None


def time_modules(
    step: Callable[[], Any], model: nn.Module, *, trace: Path | None = None
) -> dict[str, Any]:
    """Profiles one step.

    Args:
        step: does it, and waits for its end.
        model: whose modules get ranges.
        trace: file for the profile, .json or .json.gz, which https://ui.perfetto.dev opens.

    Returns:
        "modules": name -> {"forward", "backward"} in seconds, of kernels on a GPU and of the process on a CPU;
        "launches": calls that start work on the GPU, None on a CPU.
    """
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with module_ranges(model), profile(activities=activities) as found:
        step()
    if trace is not None:
        found.export_chrome_trace(str(trace))
    averages = found.key_averages()
    modules: dict[str, dict[str, float]] = {}
    for event in averages:
        name, _, way = event.key.rpartition(" ")
        # on a GPU a range is listed a second time, as its span on the device
        if event.device_type != DeviceType.CPU:
            continue
        if way in ("forward", "backward"):
            seconds = (event.device_time_total if on_gpu else event.cpu_time_total) * 1e-6
            modules.setdefault(name, {"forward": 0.0, "backward": 0.0})[way] += seconds
    return {"modules": modules, "launches": count_launches(averages) if on_gpu else None}


def count_launches(averages: Any) -> int:
    """Calls of the CUDA runtime that start work."""
    return sum(event.count for event in averages if event.key.startswith(_LAUNCHES))
