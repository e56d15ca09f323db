"""Compilation of the loader's few kernels: machine code by numba, kept on disk where that is possible."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(signature: Any) -> Callable[[Callable], Callable]:
    """Decorator: compiles a function for the given argument types when its module is imported.

    So it is done before any clock runs, and forked workers inherit it. numba keeps the code beside the source file, or in the user's
    cache folder if that is not writable, and finds it there the next time; where neither can be written, every process compiles anew.
    Indices are not checked in compiled code: callers check their input.

    Args:
        signature: numba types, such as numba.void(numba.uint8[:, ::1]).
    """

    def compile_now(function: Callable) -> Callable:
        try:
            return numba.njit(signature, cache=True)(function)
        except (RuntimeError, OSError):
            # numba found no folder to keep code in, or the one that it found is full.
            return numba.njit(signature)(function)

    return compile_now
