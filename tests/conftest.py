"""Fixtures that every room's tests share."""

import os
import pathlib

import pytest
import torch

if not torch.cuda.is_available():
    # before anything imports Triton: kernels are interpreted, on CPU tensors
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder with golden results and real input files, named by the environment variable OPENFOLD_SHARED."""
    value = os.environ.get("OPENFOLD_SHARED")
    if not value:
        pytest.skip("OPENFOLD_SHARED is not set")
    path = pathlib.Path(value).resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"OPENFOLD_SHARED names {path}, which is not a directory; unset it or correct it")
    return path
