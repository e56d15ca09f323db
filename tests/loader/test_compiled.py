"""Compilation: with a folder for the code, without one, and for read-only input."""

import numba
import numpy as np
import pytest

from openfold_opt.loader import compiled as module
from openfold_opt.loader.compiled import compiled


def total(values):
    result = 0
    for value in values:
        result += value
    return result


SIGNATURE = numba.int64(numba.types.Array(numba.uint8, 1, "C", readonly=True))


def test_code_is_compiled_at_once_and_takes_read_only_input():
    function = compiled(SIGNATURE)(total)
    assert function.signatures, "compiled before the first call"
    values = np.array([200, 100], np.uint8)
    values.setflags(write=False)
    assert function(values) == 300


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot cache function: no locator available"),
        OSError("no space left on device"),
    ],
)
def test_without_a_folder_for_the_code_it_is_compiled_all_the_same(monkeypatch, error):
    njit, asked = numba.njit, []

    def refuse_cache(signature, cache=False):
        asked.append(cache)
        if cache:
            raise error
        return njit(signature)

    monkeypatch.setattr(module.numba, "njit", refuse_cache)
    assert compiled(SIGNATURE)(total)(np.ones(3, np.uint8)) == 3
    assert asked == [True, False]
