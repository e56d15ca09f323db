"""Arguments of the C++ kernels in kernels/cpu/cpp, whose sources document what they compute.

Every kernel takes tensors first, then numbers. The sizes of tensors refer to the numbers by name.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cached_property

FLOAT_NUMBERS = ("eps", "scale")
"""Names of the numbers that are floats; all others are integers."""


@dataclass(frozen=True, kw_only=True)
class TensorArgument:
    """Requirements of a kernel on one tensor argument."""

    sizes: tuple[str | int, ...]
    """Factors of the number of elements: constants, and names of numbers of the kernel."""
    is_element: bool = True
    """Whether it has the element type of the call, float32 or bfloat16, or else float32."""
    is_optional: bool = False
    is_strided: bool = False
    """Whether it has contiguous rows with the distance `stride`, or else is contiguous."""


@dataclass(frozen=True, kw_only=True)
class NativeFunction:
    """Arguments of a C++ kernel."""

    tensors: tuple[TensorArgument, ...]
    numbers: tuple[str, ...]

    def index(self, number: str) -> int:
        """Return the index of a number among all arguments."""
        return len(self.tensors) + self.numbers.index(number)

    @cached_property
    def factors(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Return the factors of each tensor's size: a constant, and indices of arguments."""
        return tuple(
            (
                math.prod(size for size in tensor.sizes if isinstance(size, int)),
                tuple(self.index(size) for size in tensor.sizes if isinstance(size, str)),
            )
            for tensor in self.tensors
        )

    @property
    def c_types(self) -> list[type]:
        """Return the C types of all arguments."""
        is_float = (name in FLOAT_NUMBERS for name in self.numbers)
        numbers = [ctypes.c_float if x else ctypes.c_int64 for x in is_float]
        return [ctypes.c_void_p] * len(self.tensors) + numbers


def _elements(*sizes: str | int, is_optional: bool = False) -> TensorArgument:
    return TensorArgument(sizes=sizes, is_optional=is_optional)


def _floats(*sizes: str | int, is_optional: bool = False) -> TensorArgument:
    return TensorArgument(sizes=sizes, is_element=False, is_optional=is_optional)


def _function(*tensors: TensorArgument, numbers: tuple[str, ...]) -> NativeFunction:
    return NativeFunction(tensors=tensors, numbers=numbers)


_ROWS, _ROW = _elements("n", "c"), _elements("c")
_FLOAT_ROW, _FLOAT_COLUMN = _floats("c"), _floats("n")
_COLUMNS = _elements("c", "n")
_STRIDED_COLUMNS = TensorArgument(sizes=("c", "n"), is_strided=True)
_STATISTICS = _floats("n", 2)
_HEADS = _elements("n", "h", "length", "c")
_QKV_HEADS = _elements(3, "n", "h", "length", "c")
_GATES = _elements("n", "length", "h", "c")
_PROJECTIONS = _elements("n", "length", 4, "h", "c")
_WEIGHTS = _floats("n", "h", "length", "length")
_PAIR_BIAS = _floats("h", "length", "length", is_optional=True)
_EDGES = _elements("n", "rows", "c")
_FACTOR = _floats("m", "rows", "c", is_optional=True)

_HEAD_NUMBERS = ("n", "length", "h", "c")
_GATED = _function(_EDGES, _ROW, _EDGES, _FACTOR, _EDGES, _EDGES, numbers=("m", "n", "rows", "c"))

NATIVE_FUNCTIONS = {
    "add_to_rows": _function(_ROWS, _ROW, numbers=("n", "c")),
    "add_column_sums": _function(_ROWS, _FLOAT_ROW, numbers=("n", "c")),
    "add_residual": _function(
        *(_ROWS, _ROW, _floats("n", is_optional=True), _ROWS, _ROWS), numbers=("n", "c")
    ),
    "relu": _function(_ROWS, _ROW, numbers=("n", "c")),
    "relu_backward": _function(_ROWS, _ROWS, _FLOAT_ROW, numbers=("n", "c")),
    "norm_rows": _function(
        *(_ROWS, _FLOAT_ROW, _FLOAT_ROW, _ROWS, _STATISTICS), numbers=("eps", "n", "c")
    ),
    "norm_rows_backward": _function(
        *(_ROWS, _ROWS, _STATISTICS, _FLOAT_ROW, _FLOAT_ROW, _FLOAT_ROW),
        *(_elements("n", "c", is_optional=True), _ROWS),
        numbers=("n", "c"),
    ),
    "norm_columns": _function(
        *(_STRIDED_COLUMNS, _FLOAT_ROW, _FLOAT_ROW, _COLUMNS, _STATISTICS),
        numbers=("eps", "stride", "c", "n"),
    ),
    "norm_columns_backward": _function(
        *(_COLUMNS, _STRIDED_COLUMNS, _STATISTICS, _FLOAT_ROW, _FLOAT_ROW, _FLOAT_ROW),
        _STATISTICS,
        numbers=("stride", "c", "n"),
    ),
    "split_heads": _function(
        *(_PROJECTIONS, _elements(4, "h", "c"), _QKV_HEADS, _GATES), numbers=_HEAD_NUMBERS
    ),
    "merge_heads": _function(
        *(_QKV_HEADS, _PROJECTIONS, _floats(4, "h", "c")), numbers=_HEAD_NUMBERS
    ),
    "softmax": _function(
        *(_WEIGHTS, _floats("n", "length"), _PAIR_BIAS), numbers=("scale", "n", "h", "length")
    ),
    "softmax_backward": _function(_WEIGHTS, _WEIGHTS, _PAIR_BIAS, numbers=("n", "h", "length")),
    "gate_heads": _function(_HEADS, _GATES, _GATES, numbers=_HEAD_NUMBERS),
    "gate_heads_backward": _function(_HEADS, _GATES, _GATES, _PROJECTIONS, numbers=_HEAD_NUMBERS),
    "attend_groups": _function(
        *(_PROJECTIONS, _elements(4, "h", "c"), _floats("n", "length"), _PAIR_BIAS, _GATES),
        numbers=("scale", *_HEAD_NUMBERS),
    ),
    "gate_edges": _function(
        *(_COLUMNS, _COLUMNS, _elements(2, "c"), _FLOAT_COLUMN, _STRIDED_COLUMNS),
        numbers=("stride", "c", "n"),
    ),
    "gate_edges_backward": _function(
        *(_COLUMNS, _COLUMNS, _floats(2, "c"), _FLOAT_COLUMN, _STRIDED_COLUMNS),
        numbers=("stride", "c", "n"),
    ),
    "gated_residual": _GATED,
    "gated_residual_backward": _GATED,
    "add_gated": _function(_ROWS, _ROW, _ROWS, _ROWS, numbers=("n", "c")),
    "update_weights": _function(*[_floats("n")] * 5, _floats(8), numbers=("n",)),
}
"""Name of a C++ kernel -> its arguments."""
