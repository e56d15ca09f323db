"""Import modules that need Triton, which is not installed in CPU environments."""

from __future__ import annotations

import importlib
from types import ModuleType

from benchmark.command_line import BenchmarkError


def import_with_triton(module: str) -> ModuleType:
    """Import a module.

    Raises:
        BenchmarkError: Triton is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BenchmarkError(
            "this measurement needs Triton, which is not installed in this environment; "
            "./run_tests.sh --setup-only adds it to .venv; elsewhere run pip install "
            "triton==3.7.1"
        ) from error
