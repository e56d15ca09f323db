"""Trace the kernel launches of a training step on meta tensors, one by one.

Each launch gets the module that caused it. In the forward pass this is the innermost module with
a method on the call stack. In the backward pass it is the module that created the autograd node
that is executed; autograd numbers the nodes, so the numbers are recorded in the forward pass.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmark.perf.tools.can_run import import_with_triton
from benchmark.perf.tools.counting import bytes_of, flops_of
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.module_times import range_name
from openfold_opt.model.linear import LayerNorm, Linear
from openfold_opt.train.graphs.graph_memory import FUSED_NAMESPACE, launches_nothing

Direction = Literal["forward", "backward"]

OUTSIDE = "losses, model itself"
"""Name of what is launched outside of the parts of the model."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One kernel launch."""

    kernel: str
    """File and function of a Triton kernel, or the name of a PyTorch operator."""
    signature: str | None
    """Types and compile-time constants of a Triton kernel; None for a PyTorch operator."""
    module: str
    direction: Direction
    bytes: int
    """Bytes read and written, each operand once."""
    flops: int = 0
    """Operations of matrix products."""
    programs: int | None = None
    """Programs of a Triton kernel: the size of its grid."""
    is_float32: bool = False
    """Whether the first operand is float32."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The launches and collectives of one step."""

    launches: list[Launch]
    triton_launches: list[Any]
    """Kernel, grid, arguments and options of the Triton launches, for the compiler."""
    collectives: Mapping[tuple[str, str, int], int]
    """What is communicated, kind, bytes sent by a rank -> number of calls."""


def trace_step(step: MetaStep, collectives: Counter, *, with_modules: bool = True) -> Trace:
    """Trace a step.

    collectives: filled by the axis of the step. with_modules: False saves the time to find the
    module of each launch; all are then OUTSIDE.
    """
    with torch.device("meta"), _Recorder(step.model, with_modules=with_modules) as recorder:
        step.run()
    return Trace(
        launches=recorder.launches,
        triton_launches=recorder.triton_launches,
        collectives=dict(collectives),
    )


class _Recorder(TorchDispatchMode):
    """Dispatch mode that records launches while it is active."""

    def __init__(self, model: nn.Module, *, with_modules: bool) -> None:
        super().__init__()
        self._with_modules = with_modules
        self.launches: list[Launch] = []
        self.triton_launches: list[Any] = []
        self._modules: dict[int, str] = {}
        self._owners: dict[int, str] = {}
        self._nodes: dict[int, str] = {}
        self._fused: list[Any] = []
        for name, module in model.named_modules():
            place = range_name(name)
            if place is not None and not isinstance(module, (Linear, LayerNorm)):
                self._modules[id(module)] = place
        for name, parameter in model.named_parameters():
            self._owners[id(parameter)] = _owner(name, set(self._modules.values()))
        self._compiling = import_with_triton("openfold_opt.kernels.triton.compiling")
        launching = import_with_triton("openfold_opt.kernels.triton.launching")
        self._meta = launching.launches_on_meta(lambda *launch: self._fused.append(launch))

    def __enter__(self) -> _Recorder:
        self._meta.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._meta.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        module, direction = self._place()
        result = func(*args, **(kwargs or {}))
        if func.namespace == FUSED_NAMESPACE:
            self._add_fused(module, direction, flops_of(func, args, kwargs, result))
        elif not launches_nothing(func):
            self.launches.append(
                Launch(
                    kernel=func._schema.name,
                    signature=None,
                    module=module,
                    direction=direction,
                    bytes=bytes_of((args, kwargs, result)),
                    flops=flops_of(func, args, kwargs, result),
                    is_float32=_is_float32(args),
                )
            )
        return result

    def _add_fused(self, module: str, direction: Direction, flops: int) -> None:
        """Add the Triton launches of one fused operator."""
        launches, self._fused = self._fused, []
        if flops and len(launches) > 1:
            names = [self._compiling.kernel_name(kernel) for kernel, *_ in launches]
            raise AssertionError(f"{names}: one operator counts the operations of several kernels")
        for kernel, grid, args, options in launches:
            name = self._compiling.kernel_name(kernel)
            self.triton_launches.append((kernel, grid, args, options))
            self.launches.append(
                Launch(
                    kernel=name,
                    signature=self._compiling.signature_of(args, options),
                    module=module,
                    direction=direction,
                    bytes=bytes_of(args),
                    flops=flops,
                    programs=prod(grid),
                    is_float32=_is_float32(args),
                )
            )

    def _place(self) -> tuple[str, Direction]:
        """Return the module and the direction of the operation that is dispatched."""
        node = torch._C._current_autograd_node()
        if not self._with_modules:
            return OUTSIDE, "forward" if node is None else "backward"
        called = self._calling_module()
        if node is None:
            # An operation is dispatched right after autograd has created its node.
            place = called or OUTSIDE
            self._nodes.setdefault(torch._C._autograd._get_sequence_nr() - 1, place)
            return place, "forward"
        if called is not None:
            # A block is recomputed.
            self._nodes.setdefault(torch._C._autograd._get_sequence_nr() - 1, called)
            return called, "backward"
        variable = getattr(node, "variable", None)
        if variable is not None:
            return self._owners.get(id(variable), OUTSIDE), "backward"
        return self._nodes.get(node._sequence_nr(), OUTSIDE), "backward"

    def _calling_module(self) -> str | None:
        """Return the innermost module with a method on the call stack."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            # Generator expressions and inner functions of a method have self as a free variable.
            if code.co_varnames[:1] == ("self",) or "self" in code.co_freevars:
                name = self._modules.get(id(frame.f_locals.get("self")))
                if name is not None:
                    return name
            frame = frame.f_back
        return None


def _owner(parameter_name: str, modules: set[str]) -> str:
    """Return the innermost named module that has a parameter."""
    name = range_name(parameter_name) or parameter_name.partition(".")[0]
    for end in range(len(parameter_name.split(".")), 0, -1):
        candidate = range_name(".".join(parameter_name.split(".")[:end]))
        if candidate in modules:
            return candidate
    return name


def _is_float32(args: tuple) -> bool:
    first = next((x for x in tree_leaves(args) if isinstance(x, Tensor)), None)
    return first is not None and first.dtype == torch.float32
