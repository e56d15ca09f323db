"""The loops of kernels/cpu/cpp, called with tensors. Their meaning stands in the C++ sources, their arguments here.

On device meta a call does nothing: there are shapes and no elements.
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
    "split_heads": "E:n*length*4*h*c E:4*h*c E:3*n*h*length*c E:n*length*h*c n length h c",
    "merge_heads": "E:3*n*h*length*c E:n*length*4*h*c F:4*h*c n length h c",
    "softmax": "F:n*h*length*length F:n*length F?:h*length*length scale n h length",
    "softmax_backward": "F:n*h*length*length F:n*h*length*length F?:h*length*length n h length",
    "gate_heads": "E:n*h*length*c E:n*length*h*c E:n*length*h*c n length h c",
    "gate_heads_backward": "E:n*h*length*c E:n*length*h*c E:n*length*h*c E:n*length*4*h*c n length h c",
    "open_edges": "E:c*n E:c*n E:2*c F:n S:c*n stride c n",
    "open_edges_backward": "E:c*n E:c*n F:2*c F:n S:c*n stride c n",
    "gated_residual": "E:n*rows*c E:c E:n*rows*c F?:m*rows*c E:n*rows*c E:n*rows*c m n rows c",
    "gated_residual_backward": "E:n*rows*c E:c E:n*rows*c F?:m*rows*c E:n*rows*c E:n*rows*c m n rows c",
    "update_weights": "F:n F:n F:n F:n F:n F:8 n",
}
"""Arguments of each. E:n*c are n * c contiguous elements of one type, float32 or bfloat16; S the same in rows that lie `stride` apart; F are
contiguous float32; with ? also None. Then come numbers: eps and scale are floats, all others integers, by the names that sizes have."""

_TABLES = {torch.float32: "loops_of_float32", torch.bfloat16: "loops_of_bfloat16"}
_FLOATS = ("eps", "scale")


class _Entry(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p)]


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """What a loop wants of a tensor."""

    kind: str
    is_optional: bool
    factor: int
    """Of the number of elements, beside the sizes at these places among the arguments."""
    places: tuple[int, ...]
    stride_group: int | None


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Runs a loop.

    Raises:
        ValueError: a tensor is of another type or size than the loop wants, or not contiguous.
    """
    first = arguments[0]
    if isinstance(first, Tensor) and first.is_meta:
        return
    wanted = _wanted(name)
    element = next(
        (x.dtype for memory, x in zip(wanted, arguments) if memory.kind != "F"), torch.float32
    )
    places = [
        _place(name, memory, element, arguments, number) for number, memory in enumerate(wanted)
    ]
    _functions(element)[name](*places, *arguments[len(wanted) :])


def _place(
    name: str, memory: _Memory, element: torch.dtype, arguments: tuple[Any, ...], number: int
) -> int | None:
    """Address of a tensor among the arguments, once it is what the loop wants."""
    x = arguments[number]
    if x is None and memory.is_optional:
        return None
    expected = torch.float32 if memory.kind == "F" else element
    size = math.prod((memory.factor, *(arguments[place] for place in memory.places)))
    # subclasses may have no memory of their own
    if (
        type(x) not in (Tensor, nn.Parameter)
        or x.dtype != expected
        or x.numel() != size
        or not _lies_as_wanted(x, memory, arguments)
    ):
        found = (
            f"{x.dtype} of shape {tuple(x.shape)} and strides {x.stride()}"
            if isinstance(x, Tensor)
            else str(x)
        )
        layout = (
            "contiguous"
            if memory.stride_group is None
            else f"rows {arguments[memory.stride_group]} apart"
        )
        raise ValueError(
            f"loop {name}, argument {number}: found {found}; expected {size} elements of {expected}, {layout}"
        )
    return x.data_ptr()


def _lies_as_wanted(x: Tensor, memory: _Memory, arguments: tuple[Any, ...]) -> bool:
    if memory.stride_group is None:
        return x.is_contiguous()
    return x.dim() == 2 and x[0].is_contiguous() and x.stride(0) == arguments[memory.stride_group]


@cache
def _wanted(name: str) -> tuple[_Memory, ...]:
    """Of the tensors, which come first."""
    tokens = NATIVE_FUNCTIONS[name].split()
    wanted = []
    for token in filter(lambda token: ":" in token, tokens):
        kind, _, size = token.partition(":")
        factors = size.split("*")
        wanted.append(
            _Memory(
                kind=kind[0],
                is_optional=kind.endswith("?"),
                factor=math.prod(int(factor) for factor in factors if factor.isdigit()),
                places=tuple(tokens.index(factor) for factor in factors if not factor.isdigit()),
                stride_group=tokens.index("stride") if kind[0] == "S" else None,
            )
        )
    return tuple(wanted)


@cache
def _functions(element: torch.dtype) -> dict[str, Callable]:
    """name -> C function, for elements of a type."""
    if element not in _TABLES:
        raise ValueError(
            f'kernels for a CPU work on float32 and bfloat16, found {element}; set their fields of KernelConfig to "reference"'
        )
    entries = (_Entry * (len(NATIVE_FUNCTIONS) + 1)).in_dll(library(), _TABLES[element])
    places = {entry.name.decode(): entry.function for entry in entries[: len(NATIVE_FUNCTIONS)]}
    return {
        name: ctypes.CFUNCTYPE(None, *map(_type_of, arguments.split()))(places[name])
        for name, arguments in NATIVE_FUNCTIONS.items()
    }


def _type_of(token: str) -> type:
    return (
        ctypes.c_void_p if ":" in token else ctypes.c_float if token in _FLOATS else ctypes.c_int64
    )
