"""The loops of kernels/cpu/cpp, called with tensors. Their meaning stands in the C++ sources, their arguments here.

On device meta a call does nothing: there are shapes and no elements.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from openfold_opt.kernels.cpu.library import library

LOOPS = {
    "add_to_rows": "E E i i",
    "add_column_sums": "E F i i",
    "add_residual": "E E F? E E i i",
    "relu": "E E i i",
    "relu_backward": "E E F i i",
    "norm_rows": "E F F E F f i i",
    "norm_rows_backward": "E E F F F F E? E i i",
    "norm_columns": "S F F E F f i i i",
    "norm_columns_backward": "E S F F F F F i i i",
    "split_heads": "E E E E i i i i",
    "merge_heads": "E E F i i i i",
    "softmax": "F F F? f i i i",
    "softmax_backward": "F F F? i i i",
    "gate_heads": "E E E i i i i",
    "gate_heads_backward": "E E E E i i i i",
    "open_edges": "E E E F S i i i",
    "open_edges_backward": "E E F F S i i i",
    "gated_residual": "E E E F? E E i i i i",
    "gated_residual_backward": "E E E F? E E i i i i",
    "update_weights": "F F F F F F i",
}
"""Arguments of each: E contiguous elements of one type, float32 or bfloat16; S the same, rows of which lie apart; F contiguous float32; with ?
also None; f a float, i an integer."""

_TABLES = {torch.float32: "loops_of_float32", torch.bfloat16: "loops_of_bfloat16"}


class _Entry(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p)]


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Runs a loop.

    Raises:
        ValueError: a tensor is of another type than the loop wants, or not contiguous.
    """
    if arguments[0].is_meta:
        return
    kinds = _kinds(name)
    element = next((x.dtype for kind, x in zip(kinds, arguments) if kind in "ES"), torch.float32)
    _functions(element)[name](*map(partial(_passed, name, element), kinds, arguments))


def _passed(name: str, element: torch.dtype, kind: str, x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    expected = torch.float32 if kind[0] == "F" else element
    is_contiguous = x[0].is_contiguous() if kind == "S" else x.is_contiguous()
    if x.dtype != expected or not is_contiguous:
        found = f"{x.dtype} of shape {tuple(x.shape)} and strides {x.stride()}"
        raise ValueError(f"loop {name}: found {found}; expected {expected}, contiguous{' in each row' if kind == 'S' else ''}")
    return x.data_ptr()


@cache
def _kinds(name: str) -> list[str]:
    return LOOPS[name].split()


@cache
def _functions(element: torch.dtype) -> dict[str, Callable]:
    """name -> C function, for elements of a type."""
    if element not in _TABLES:
        raise ValueError(f"kernels for a CPU work on float32 and bfloat16, found {element}; set their fields of KernelConfig to \"reference\"")
    entries = (_Entry * (len(LOOPS) + 1)).in_dll(library(), _TABLES[element])
    places = {entry.name.decode(): entry.function for entry in entries[: len(LOOPS)]}
    types = {"E": ctypes.c_void_p, "S": ctypes.c_void_p, "F": ctypes.c_void_p, "f": ctypes.c_float, "i": ctypes.c_int64}
    return {name: ctypes.CFUNCTYPE(None, *(types[kind[0]] for kind in _kinds(name)))(places[name]) for name in LOOPS}
