"""Fixtures: conversions of the shared real data, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.communicator import SerialCommunicator
from data_prep.convert.pipeline import convert
from data_prep.convert.raw_source import RawSource


def convert_shared(shared: Path, name: str, out: Path, **options) -> Path:
    source = RawSource(
        pdb_mmcif=shared / "data" / name / "pdb_mmcif",
        open_protein_set=shared / "data" / name / "open_protein_set",
        **options,
    )
    convert(source, out, SerialCommunicator())
    return out


@pytest.fixture(scope="session", params=["real", "quirks"])
def golden_case(request, shared, tmp_path_factory) -> tuple[Path, Path]:
    """Return the data directory and the golden directory of each of the two small data sets."""
    golden = {"real": "data", "quirks": "data_quirks"}[request.param]
    out = convert_shared(
        shared, request.param, tmp_path_factory.mktemp("converted") / request.param
    )
    return out, shared / "golden" / golden


@pytest.fixture(scope="session")
def large_case(shared, tmp_path_factory) -> tuple[Path, Path]:
    """Return the data directory and the golden directory of the large data set.

    Most of its chains have no alignment.
    """
    out = tmp_path_factory.mktemp("converted") / "real_large"
    convert_shared(shared, "real_large", out, missing_alignments="query")
    return out, shared / "golden" / "data_large"
