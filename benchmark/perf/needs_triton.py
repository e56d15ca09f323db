"""Measurements of the fused kernels need Triton, which a run on a CPU does without."""

from __future__ import annotations

import importlib
from types import ModuleType

from benchmark.errors import BenchmarkError


def import_with_triton(module: str) -> ModuleType:
    """The module; BenchmarkError says how to get Triton where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BenchmarkError(
            "this measurement needs Triton, which is not installed in this environment; "
            "./run_tests.sh --setup-only adds it to .venv, elsewhere: pip install triton==3.7.1"
        ) from error
