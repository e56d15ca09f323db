"""Fixtures that every room's tests share."""

import os
import pathlib

import pytest


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
