"""A converted data set of two chains from the raw files of tests/support/raw_data.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.communicator import SerialCommunicator
from data_prep.convert.pipeline import convert
from data_prep.convert.raw_source import RawSource
from tests.support import raw_data


@pytest.fixture(scope="session")
def small_data_dir(tmp_path_factory) -> Path:
    """Data directory of the chains 1abc_A and 2abc_A."""
    folder = tmp_path_factory.mktemp("small_data_set")
    raw = raw_data.write_raw_data(folder / "raw_files")
    out = folder / "data"
    convert(
        RawSource(pdb_mmcif=raw / "pdb_mmcif", open_protein_set=raw / "open_protein_set"),
        out,
        SerialCommunicator(),
    )
    return out
