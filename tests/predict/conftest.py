"""Synthetic chains as raw files and as converted shards."""

from __future__ import annotations

import pytest

from tests.support.prediction_inputs import SyntheticData, write_synthetic_data


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> SyntheticData:
    return write_synthetic_data(tmp_path_factory.mktemp("synthetic"))
