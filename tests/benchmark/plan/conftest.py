"""A small table of counts."""

import json

import pytest

from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE, CountTable
from tests.support.step_counts import small_step


@pytest.fixture
def small_table() -> CountTable:
    """Return counts of all code bases at DAP 1, 2, 4 and 8."""
    return CountTable(
        steps=[
            small_step(code, dap) for code in (PROJECT, REFERENCE, NVIDIA) for dap in (1, 2, 4, 8)
        ],
    )


@pytest.fixture
def counts_file(small_table, tmp_path):
    """Return the path of the small table as a file."""
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(to_json(small_table)))
    return path
