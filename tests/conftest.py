"""Fixtures and hooks that the tests of all packages share."""

import os
import pathlib

import pytest
import torch

from openfold_opt.kernels.cpu.library import unsupported_reason

if not torch.cuda.is_available():
    # Set before the first import of Triton, so that kernels are interpreted on CPU tensors.
    os.environ.setdefault("TRITON_INTERPRET", "1")
    from tests.support.fast_interpreter import keep_language_patched

    keep_language_patched()

TESTS = pathlib.Path(__file__).parent
SLOW_FILES = (
    "benchmark/run/test_run.py",
    "tools/test_gpu_suite.py",
    "train/test_survival.py",
    "train/test_phases.py",
    "train/test_ranks.py",
    "train/test_stress_starts.py",
    "architecture/test_lint.py",
    "predict/test_command.py",
    "model/test_fused_kernels.py",
    "benchmark/run/test_status.py",
    "benchmark/run/test_run_phases.py",
    "benchmark/run/test_signals.py",
    "benchmark/perf/test_step.py",
    "benchmark/perf/test_resources.py",
    "benchmark/perf/test_kernels.py",
    "benchmark/perf/test_resources_other_chips.py",
    "predict/test_predictions_equal_evaluation.py",
)
"""The files that take longest, longest first.

They run before all others, so that several test processes end at about the same time.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first, and skip tests whose mark requires something this machine lacks."""
    places = {TESTS / name: number for number, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    # Called only if a test has the mark, because unsupported_reason compiles a library.
    requirements = {
        "gpu": lambda: None if torch.cuda.is_available() else "no CUDA device",
        "compiler": unsupported_reason,
    }
    for item in items:
        for mark, unmet_requirement in requirements.items():
            reason = unmet_requirement() if mark in item.keywords else None
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder of golden results and real input files, from the variable OPENFOLD_SHARED."""
    value = os.environ.get("OPENFOLD_SHARED")
    if not value:
        pytest.skip("OPENFOLD_SHARED is not set")
    path = pathlib.Path(value).resolve()
    if not path.is_dir():
        raise FileNotFoundError(
            f"OPENFOLD_SHARED is {path}, which is not a directory; unset it or fix the path"
        )
    return path
