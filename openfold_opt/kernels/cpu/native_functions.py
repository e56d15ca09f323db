"""Calls of the C++ kernels in kernels/cpu/cpp with tensors.

The C++ sources document what each kernel computes; NATIVE_FUNCTIONS describes its arguments. On
device meta a call does nothing, as tensors have shapes but no elements.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from openfold_opt.kernels.cpu.library import library

NATIVE_FUNCTIONS = {
    "add_to_rows": "E:n*c E:c n c",
    "add_column_sums": "E:n*c F:c n c",
    "add_residual": "E:n*c E:c F?:n E:n*c E:n*c n c",
    "relu": "E:n*c E:c n c",
    "relu_backward": "E:n*c E:n*c F:c n c",
    "norm_rows": "E:n*c F:c F:c E:n*c F:n*2 eps n c",
    "norm_rows_backward": "E:n*c E:n*c F:n*2 F:c F:c F:c E?:n*c E:n*c n c",
    "norm_columns": "S:c*n F:c F:c E:c*n F:2*n eps stride c n",
    "norm_columns_backward": "E:c*n S:c*n F:2*n F:c F:c F:c F:2*n stride c n",
    "split_heads": ("E:n*length*4*h*c E:4*h*c E:3*n*h*length*c E:n*length*h*c n length h c"),
    "merge_heads": "E:3*n*h*length*c E:n*length*4*h*c F:4*h*c n length h c",
    "softmax": "F:n*h*length*length F:n*length F?:h*length*length scale n h length",
    "softmax_backward": "F:n*h*length*length F:n*h*length*length F?:h*length*length n h length",
    "gate_heads": "E:n*h*length*c E:n*length*h*c E:n*length*h*c n length h c",
    "gate_heads_backward": (
        "E:n*h*length*c E:n*length*h*c E:n*length*h*c E:n*length*4*h*c n length h c"
    ),
    "gate_edges": "E:c*n E:c*n E:2*c F:n S:c*n stride c n",
    "gate_edges_backward": "E:c*n E:c*n F:2*c F:n S:c*n stride c n",
    "gated_residual": "E:n*rows*c E:c E:n*rows*c F?:m*rows*c E:n*rows*c E:n*rows*c m n rows c",
    "gated_residual_backward": (
        "E:n*rows*c E:c E:n*rows*c F?:m*rows*c E:n*rows*c E:n*rows*c m n rows c"
    ),
    "update_weights": "F:n F:n F:n F:n F:n F:8 n",
}
"""Name -> arguments: tensors first, then numbers.

A tensor is KIND:SIZE. Kind E means contiguous elements of one type, float32 or bfloat16; S the
same in rows with the distance `stride`; F contiguous float32. A kind with ? may be None. Sizes
refer to the numbers by name. Of these, eps and scale are floats, all others integers."""

_TABLES = {torch.float32: "kernels_float32", torch.bfloat16: "kernels_bfloat16"}
_FLOATS = ("eps", "scale")


class _Entry(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p)]


@dataclass(frozen=True, kw_only=True)
class _TensorArgument:
    """Requirements of a kernel on one tensor argument."""

    kind: str
    is_optional: bool
    factor: int
    """Constant factor of the number of elements."""
    size_indices: tuple[int, ...]
    """Indices of the arguments that are the other factors of the number of elements."""
    stride_index: int | None
    """Index of the argument that is the distance of rows; None for contiguous tensors."""


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Run a C++ kernel.

    Raises:
        ValueError: a tensor has another dtype, size or layout than the kernel requires.
    """
    first = arguments[0]
    if isinstance(first, Tensor) and first.is_meta:
        return
    required = _tensor_arguments(name)
    element = next(
        (x.dtype for tensor, x in zip(required, arguments) if tensor.kind != "F"), torch.float32
    )
    addresses = [
        _address(name, tensor, element, arguments, index) for index, tensor in enumerate(required)
    ]
    _functions(element)[name](*addresses, *arguments[len(required) :])


def _address(
    name: str,
    required: _TensorArgument,
    element: torch.dtype,
    arguments: tuple[Any, ...],
    index: int,
) -> int | None:
    """Check the tensor argument at an index and return its address."""
    x = arguments[index]
    if x is None and required.is_optional:
        return None
    dtype = torch.float32 if required.kind == "F" else element
    size = math.prod((required.factor, *(arguments[i] for i in required.size_indices)))
    # Subclasses of Tensor may have no memory.
    if (
        type(x) not in (Tensor, nn.Parameter)
        or x.dtype != dtype
        or x.numel() != size
        or not _has_layout(x, required, arguments)
    ):
        found = (
            f"{x.dtype} of shape {tuple(x.shape)} and strides {x.stride()}"
            if isinstance(x, Tensor)
            else str(x)
        )
        layout = (
            "contiguous"
            if required.stride_index is None
            else f"in rows with stride {arguments[required.stride_index]}"
        )
        raise ValueError(
            f"CPU kernel {name}, argument {index}: found {found}; expected {size} elements of "
            f"{dtype}, {layout}"
        )
    return x.data_ptr()


def _has_layout(x: Tensor, required: _TensorArgument, arguments: tuple[Any, ...]) -> bool:
    if required.stride_index is None:
        return x.is_contiguous()
    return x.dim() == 2 and x[0].is_contiguous() and x.stride(0) == arguments[required.stride_index]


@cache
def _tensor_arguments(name: str) -> tuple[_TensorArgument, ...]:
    """Return the requirements on the tensor arguments, which come first."""
    tokens = NATIVE_FUNCTIONS[name].split()
    tensors = []
    for token in filter(lambda token: ":" in token, tokens):
        kind, _, size = token.partition(":")
        factors = size.split("*")
        tensors.append(
            _TensorArgument(
                kind=kind[0],
                is_optional=kind.endswith("?"),
                factor=math.prod(int(factor) for factor in factors if factor.isdigit()),
                size_indices=tuple(
                    tokens.index(factor) for factor in factors if not factor.isdigit()
                ),
                stride_index=tokens.index("stride") if kind[0] == "S" else None,
            )
        )
    return tuple(tensors)


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
        name: ctypes.CFUNCTYPE(None, *map(_c_type, arguments.split()))(addresses[name])
        for name, arguments in NATIVE_FUNCTIONS.items()
    }


def _c_type(token: str) -> type:
    return (
        ctypes.c_void_p if ":" in token else ctypes.c_float if token in _FLOATS else ctypes.c_int64
    )
