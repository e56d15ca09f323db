"""Calls of the C++ kernels in kernels/cpu/cpp with tensors.

native_signatures.py describes their arguments. On device meta a call does nothing, as tensors have
shapes but no elements.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from openfold_opt.kernels.cpu.library import library
from openfold_opt.kernels.cpu.native_signatures import NATIVE_FUNCTIONS

Arguments = tuple[Tensor | int | float | None, ...]
"""Arguments of a call: tensors first, then numbers."""


_TABLES = {torch.float32: "kernels_float32", torch.bfloat16: "kernels_bfloat16"}


class _Entry(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p)]


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a C++ kernel.

    Raises:
        ValueError: a tensor has another dtype, size or layout than the kernel requires.
    """
    first = arguments[0]
    if isinstance(first, Tensor) and first.is_meta:
        return
    function = NATIVE_FUNCTIONS[name]
    element = next(
        (x.dtype for tensor, x in zip(function.tensors, arguments) if tensor.is_element),
        torch.float32,
    )
    addresses = [
        _address(name, element, arguments, index) for index in range(len(function.tensors))
    ]
    _functions(element)[name](*addresses, *arguments[len(function.tensors) :])


def _address(name: str, element: torch.dtype, arguments: Arguments, index: int) -> int | None:
    """Check the tensor argument at an index and return its address."""
    function, x = NATIVE_FUNCTIONS[name], arguments[index]
    required, (factor, size_indices) = function.tensors[index], function.factors[index]
    if x is None and required.is_optional:
        return None
    dtype = element if required.is_element else torch.float32
    size = math.prod((factor, *(arguments[i] for i in size_indices)))
    stride = arguments[function.index("stride")] if required.is_strided else None
    # Subclasses of Tensor may have no memory.
    if (
        type(x) not in (Tensor, nn.Parameter)
        or x.dtype != dtype
        or x.numel() != size
        or not _has_layout(x, stride)
    ):
        found = (
            f"{x.dtype} of shape {tuple(x.shape)} and strides {x.stride()}"
            if isinstance(x, Tensor)
            else str(x)
        )
        layout = "contiguous" if stride is None else f"in rows with stride {stride}"
        raise ValueError(
            f"CPU kernel {name}, argument {index}: found {found}; expected {size} elements of "
            f"{dtype}, {layout}"
        )
    return x.data_ptr()


def _has_layout(x: Tensor, stride: int | None) -> bool:
    """Return whether x is contiguous or, with a stride, has contiguous rows at this distance."""
    if stride is None:
        return x.is_contiguous()
    return x.dim() == 2 and x[0].is_contiguous() and x.stride(0) == stride


@cache
def _functions(element: torch.dtype) -> dict[str, Callable]:
    """Return the C functions by name, for an element type."""
    if element not in _TABLES:
        raise ValueError(
            f"found {element}, but CPU kernels work on float32 and bfloat16; set their fields of "
            'KernelConfig to "reference"'
        )
    entries = (_Entry * (len(NATIVE_FUNCTIONS) + 1)).in_dll(library(), _TABLES[element])
    addresses = {entry.name.decode(): entry.function for entry in entries[: len(NATIVE_FUNCTIONS)]}
    return {
        name: ctypes.CFUNCTYPE(None, *function.c_types)(addresses[name])
        for name, function in NATIVE_FUNCTIONS.items()
    }
