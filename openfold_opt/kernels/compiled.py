"""The plain operations as torch.compile makes them.

Compiled at the first call with each shape (warm-up does that before the clock). What was compiled stays in TorchInductor's cache, which
lies in TORCHINDUCTOR_CACHE_DIR or a folder of the user's in /tmp, and later processes take it from there.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping

import torch

NOT_COMPILED = {
    "dropout_masks": "its 64-bit integer products are no gain",
    "weight_update": "it works in place on tensors that outlive it",
}
"""Operation -> why it is not offered."""
_VECTOR_BITS = {"DEFAULT": 1, "AVX2": 256, "AVX512": 512}
"""Capability of an x86-64 processor as PyTorch names it -> width of its vectors; 1 means none."""


def compile_for_processor(function: Callable, *, fullgraph: bool = False) -> Callable:
    """Return torch.compile of a function for the vector width of this processor.

    TorchInductor's cache does not record which instruction set its C++ code was generated for. A
    process with another one, on another machine with the same cache directory or with another
    ATEN_CPU_CAPABILITY, would load code that computes only a part of the elements. The width that
    is passed here is part of the cache's key.
    """
    options = {}
    if platform.machine() == "x86_64":
        capability = torch.backends.cpu.get_cpu_capability()
        if capability in _VECTOR_BITS:
            options["cpp.simdlen"] = _VECTOR_BITS[capability]
    return torch.compile(function, dynamic=False, fullgraph=fullgraph, options=options)


@functools.cache
def compile_operations(plain: tuple[tuple[str, Callable], ...]) -> Mapping[str, Callable]:
    """Name -> compiled operation; nothing is compiled before the first call.

    plain: (name, plain version) of all operations.
    """
    return {
        name: _compile(name, operation) for name, operation in plain if name not in NOT_COMPILED
    }


def _compile(name: str, operation: Callable) -> Callable:
    return (
        _compile_self_attention(operation)
        if name == "self_attention"
        else compile_for_processor(operation)
    )


def _compile_self_attention(operation: Callable) -> Callable:
    """The compiler sees the bias that has arrived, not the waiting for it."""

    def with_tensor(*args, bias, **options):
        return operation(*args, bias=None if bias is None else lambda: bias, **options)

    compiled = compile_for_processor(with_tensor)
    return lambda *args, bias=None, **options: compiled(
        *args, bias=None if bias is None else bias(), **options
    )
