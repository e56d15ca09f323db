"""Compilation with torch.compile of parts of a training step that are not operations.

An operation has a kernel (kernels/operations.py). The parts below consist of many small PyTorch
operators instead, which TorchInductor fuses. A part is compiled as functions on tensors, so that
modules, names of parameters and checkpoints do not change. Collectives are started and waited for
outside the compiled functions.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Collection, Iterable
from types import MethodType
from typing import Literal, ParamSpec, TypeVar, cast, get_args

import torch

from openfold_opt.kernels.interface import KernelConfig

CompiledPart = Literal["structure_module", "losses", "embedders", "heads"]
COMPILED_PARTS: tuple[CompiledPart, ...] = get_args(CompiledPart)
"""The parts that can be compiled; docs/graphs.md has the functions of each part."""

Backend = str | Callable[..., object]
"""Argument of torch.compile: a name, or a function that compiles a graph."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_OPERATIONS: dict[CompiledPart, tuple[str, ...]] = {
    "structure_module": ("layer_norm", "invariant_point_attention", "backbone_update"),
    "losses": (),
    "embedders": ("layer_norm",),
    "heads": ("layer_norm",),
}
"""Operations within each part. Triton kernels are calls in the compiled code; the code of reference
kernels is compiled; CPU kernels cannot be traced."""

_VECTOR_BITS = {"DEFAULT": 1, "AVX2": 256, "AVX512": 512}
"""Capability of an x86-64 processor as PyTorch names it -> vector width in bits; 1 means none."""


class CompiledParts:
    """The parts that a plan compiles. Each function is compiled at its first call.

    Shapes are static: a call with other shapes compiles again. A function that cannot be traced
    completely is an error.
    """

    def __init__(
        self, parts: Iterable[CompiledPart] = (), *, backend: Backend = "inductor"
    ) -> None:
        """Choose the parts. backend: compiles the traced functions."""
        self.parts = frozenset(parts)
        self._backend = backend
        self._compiled: dict[Callable[..., object], Callable[..., object]] = {}

    def apply(
        self, part: CompiledPart, function: Callable[Parameters, Result]
    ) -> Callable[Parameters, Result]:
        """Return a function or bound method of a part, compiled if the part is."""
        if part not in self.parts:
            return function
        if isinstance(function, MethodType):
            # All instances of a class share the compiled method.
            return functools.partial(self._compiled_once(function.__func__), function.__self__)
        return self._compiled_once(function)

    def _compiled_once(self, function: Callable[..., Result]) -> Callable[..., Result]:
        if function not in self._compiled:
            self._compiled[function] = _compile(function, self._backend)
        return cast(Callable[..., Result], self._compiled[function])


def compile_for_processor(
    function: Callable[Parameters, Result], *, fullgraph: bool = False
) -> Callable[Parameters, Result]:
    """Return torch.compile of a function for the vector width of this processor.

    TorchInductor's cache does not record which instruction set its C++ code was generated for. A
    process with another one (on another machine with the same cache directory, or with another
    ATEN_CPU_CAPABILITY) would load code that computes only a part of the elements. The width passed
    here is part of the cache key.
    """
    options: dict[str, str | int | bool | Callable] = {}
    if platform.machine() == "x86_64":
        capability = torch.backends.cpu.get_cpu_capability()
        if capability in _VECTOR_BITS:
            options["cpp.simdlen"] = _VECTOR_BITS[capability]
    return torch.compile(function, dynamic=False, fullgraph=fullgraph, options=options)


def _compile(
    function: Callable[Parameters, Result], backend: Backend
) -> Callable[Parameters, Result]:
    compiled = (
        compile_for_processor(function, fullgraph=True)
        if backend == "inductor"
        else torch.compile(function, dynamic=False, fullgraph=True, backend=backend)
    )

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        # NumPy arrays are the tables of residue types. Tracing would make them inputs in host
        # memory; without it they are constants on the device (geometry/residue_tables.py).
        with torch._dynamo.config.patch(trace_numpy=False):
            return compiled(*args, **kwargs)

    return call


def check_compiled_parts(
    parts: Collection[CompiledPart], kernels: KernelConfig, device: torch.device
) -> None:
    """Raise ValueError if parts cannot be compiled with these kernels on this device.

    kernels: a resolved KernelConfig.
    """
    check_part_names(parts)
    for part in parts:
        native = [name for name in _OPERATIONS[part] if getattr(kernels, name) == "cpu"]
        if native:
            raise ValueError(
                f"compiled_parts contains {part!r}, but torch.compile cannot trace the CPU kernels "
                f'of {", ".join(native)}; set these fields of KernelConfig to "reference", or '
                f"remove {part!r}"
            )
    reason = _missing_compiler(device) if parts else None
    if reason is not None:
        raise ValueError(f"compiled_parts={tuple(parts)}: {reason}; or set compiled_parts=()")


def check_part_names(parts: Collection[str]) -> None:
    """Raise ValueError for a part that does not exist or is given twice."""
    unknown = [name for name in parts if name not in COMPILED_PARTS]
    if unknown:
        raise ValueError(
            f"unknown compiled part {unknown[0]!r}; expected any of {', '.join(COMPILED_PARTS)}"
        )
    if len(set(parts)) != len(parts):
        raise ValueError(f"compiled_parts={tuple(parts)}: expected each part once")


def _missing_compiler(device: torch.device) -> str | None:
    """Return which program TorchInductor lacks for a device, and how to install it."""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return (
                "torch.compile needs a C++ compiler on a CPU, and none was found; install one "
                "(Debian, Ubuntu: apt-get install g++)"
            )
    elif device.type == "cuda" and not torch.utils._triton.has_triton_package():
        return (
            "torch.compile needs Triton on a GPU, and it cannot be imported; install the extra "
            "`gpu` of pyproject.toml"
        )
    return None
