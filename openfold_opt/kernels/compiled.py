"""The reference operations compiled by torch.compile.

An operation is compiled at its first call with each shape; the warm-up does this before the timed
run. TorchInductor caches the code in TORCHINDUCTOR_CACHE_DIR or a folder of the user in /tmp,
where later processes find it.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping

import torch

NOT_COMPILED = {
    "dropout_masks": "its 64-bit integer products do not become faster",
    "weight_update": "it works in place on tensors that outlive it",
}
"""Operation -> why it is not compiled."""
_VECTOR_BITS = {"DEFAULT": 1, "AVX2": 256, "AVX512": 512}
"""Capability of an x86-64 processor as PyTorch names it -> vector width in bits; 1 means none."""


def compile_for_processor(function: Callable, *, fullgraph: bool = False) -> Callable:
    """Return torch.compile of a function for the vector width of this processor.

    TorchInductor's cache does not record which instruction set its C++ code was generated for. A
    process with another one (on another machine with the same cache directory, or with another
    ATEN_CPU_CAPABILITY) would load code that computes only a part of the elements. The width passed
    here is part of the cache key.
    """
    options = {}
    if platform.machine() == "x86_64":
        capability = torch.backends.cpu.get_cpu_capability()
        if capability in _VECTOR_BITS:
            options["cpp.simdlen"] = _VECTOR_BITS[capability]
    return torch.compile(function, dynamic=False, fullgraph=fullgraph, options=options)


@functools.cache
def compile_operations(reference: tuple[tuple[str, Callable], ...]) -> Mapping[str, Callable]:
    """Return the compiled operations by name; each is compiled at its first call.

    reference: (name, reference version) of all operations.
    """
    return {
        name: _compile(name, operation) for name, operation in reference if name not in NOT_COMPILED
    }


def _compile(name: str, operation: Callable) -> Callable:
    return (
        _compile_self_attention(operation)
        if name == "self_attention"
        else compile_for_processor(operation)
    )


def _compile_self_attention(operation: Callable) -> Callable:
    """Call `bias` outside of the compiled function, as the call may wait for a collective."""

    def with_tensor(*args, bias, **options):
        return operation(*args, bias=None if bias is None else lambda: bias, **options)

    compiled = compile_for_processor(with_tensor)
    return lambda *args, bias=None, **options: compiled(
        *args, bias=None if bias is None else bias(), **options
    )
