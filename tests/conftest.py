"""Fixtures that every room's tests share."""

import os
import pathlib

import pytest
import torch

from openfold_opt.kernels.cpu.library import unsupported_reason

if not torch.cuda.is_available():
    # before anything imports Triton: kernels are interpreted, on CPU tensors
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests are skipped where what their mark names is not there."""
    # asked for only where a test has the mark: the compiler's answer is a library
    reasons = {
        "gpu": lambda: None if torch.cuda.is_available() else "no CUDA device",
        "compiler": unsupported_reason,
    }
    for item in items:
        for mark, reason_of in reasons.items():
            reason = reason_of() if mark in item.keywords else None
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder with golden results and real input files, named by the environment variable OPENFOLD_SHARED."""
    value = os.environ.get("OPENFOLD_SHARED")
    if not value:
        pytest.skip("OPENFOLD_SHARED is not set")
    path = pathlib.Path(value).resolve()
    if not path.is_dir():
        raise FileNotFoundError(
            f"OPENFOLD_SHARED names {path}, which is not a directory; unset it or correct it"
        )
    return path
