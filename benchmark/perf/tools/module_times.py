"""Profile a step by module, with profiler ranges named after the modules and a Perfetto trace."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._pytree import tree_map

from openfold_opt.model.linear import LayerNorm, Linear

_DEEPEST = 3
"""Components of the longest range name, such as evoformer_stack.core.tri_att_start."""
_LAUNCHES = (
    "cudaLaunchKernel",
    "cuLaunchKernel",
    "cudaGraphLaunch",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
)


@dataclass(frozen=True, kw_only=True)
class ModuleTimes:
    """Seconds of a module, GPU kernel time or CPU time."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def both(self) -> float:
        """Sum of forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True, kw_only=True)
class ModuleProfile:
    """Profile of one step."""

    modules: dict[str, ModuleTimes]
    """Times by range name."""
    launches: int | None
    """Number of calls that start work on the GPU, None on a CPU."""


def range_name(module_name: str) -> str | None:
    """Return the name of a module's range, the same for all blocks of a stack.

    Returns None for blocks themselves and for modules nested too deeply.
    """
    name = re.sub(r"\.blocks\.\d+", "", module_name)
    is_block = re.search(r"\.blocks(\.\d+)?$", module_name) is not None
    return None if not name or is_block or name.count(".") >= _DEEPEST else name


@contextmanager
def module_ranges(model: nn.Module) -> Iterator[None]:
    """Record the ranges "NAME forward" and "NAME backward" of the modules while active.

    On a GPU the ranges are also NVTX ranges. Single linear layers and normalizations get no range.
    """
    wrapped = []
    for module_name, module in model.named_modules():
        name = range_name(module_name)
        if name is None or isinstance(module, (nn.ModuleList, Linear, LayerNorm)):
            continue
        ranges = _ModuleRanges(name)
        for stage in stages_of(module):
            # An attribute of the object hides the method of the class.
            setattr(module, stage, ranges.around(getattr(module, stage)))
            wrapped.append((module, stage))
    try:
        yield
    finally:
        for module, stage in wrapped:
            delattr(module, stage)


def stages_of(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the methods that do the work of a module."""
    return getattr(module, "stages", ("forward",))


class _ModuleRanges:
    """Opens and closes both ranges of a module around its stages.

    The backward range is open from the gradient of a result of a stage to the last gradient of its
    arguments.
    """

    def __init__(self, name: str) -> None:
        self._forward, self._backward = _Range(f"{name} forward"), _Range(f"{name} backward")

    def around(self, stage: Callable[..., Any]) -> Callable[..., Any]:
        """Return the stage with ranges."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._forward.enter()
            is_waiting: list[bool] = []

            def close() -> None:
                is_waiting.pop()
                if not is_waiting:
                    self._backward.leave()

            def mark(x: Any) -> Any:
                if isinstance(x, Tensor) and x.requires_grad:
                    is_waiting.append(True)
                return _marked(x, close)

            args, kwargs = tree_map(mark, (args, kwargs))
            result = tree_map(partial(_marked, action=self._backward.enter), stage(*args, **kwargs))
            self._forward.leave()
            return result

        return run


def _marked(x: Any, action: Callable[[], None]) -> Any:
    """Return x. If x is a tensor, `action` is called when its gradient is ready."""
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
    """A profiler range that can be opened repeatedly, but not nested."""

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
        # If no input of a module requires a gradient, no hook closes its backward range.
        if self._open is None:
            return
        if torch.cuda.is_available():
            torch.cuda.nvtx.range_pop()
        self._open.__exit__(None, None, None)
        self._open = None


def time_modules(
    step: Callable[[], Any], model: nn.Module, *, trace: Path | None = None
) -> ModuleProfile:
    """Profile one step.

    Args:
        step: Runs the step and waits for its end.
        model: The model whose modules get ranges.
        trace: File to write the profile to, .json or .json.gz, for https://ui.perfetto.dev.
    """
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with module_ranges(model), profile(activities=activities) as profiler:
        step()
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    averages = profiler.key_averages()
    modules: dict[str, ModuleTimes] = {}
    for event in averages:
        name, _, direction = event.key.rpartition(" ")
        # On a GPU a range is listed a second time, as its span on the device.
        if event.device_type != DeviceType.CPU or direction not in ("forward", "backward"):
            continue
        seconds = (event.device_time_total if on_gpu else event.cpu_time_total) * 1e-6
        times = modules.get(name, ModuleTimes())
        modules[name] = dataclasses.replace(
            times, **{direction: getattr(times, direction) + seconds}
        )
    return ModuleProfile(modules=modules, launches=count_launches(averages) if on_gpu else None)


def count_launches(averages: Any) -> int:
    """Count the CUDA calls that start work."""
    return sum(event.count for event in averages if event.key.startswith(_LAUNCHES))
