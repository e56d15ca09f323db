"""A small table of counts."""

import json

import pytest

from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.other_results import FINE_TUNING_SHAPE
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE, CountTable
from tests.support.step_counts import small_step


@pytest.fixture
def small_table() -> CountTable:
    """Return counts of all code bases at DAP 1, 2, 4 and 8, and those of fine-tuning."""
    benchmark = [
        small_step(code, dap) for code in (PROJECT, REFERENCE, NVIDIA) for dap in (1, 2, 4, 8)
    ]
    fine_tuning = [
        small_step(code, dap, shape=FINE_TUNING_SHAPE)
        for code, dap in ((REFERENCE, 1), (NVIDIA, 1), (NVIDIA, 4))
    ]
    return CountTable(steps=[*benchmark, *fine_tuning])


@pytest.fixture
def counts_file(small_table, tmp_path):
    """Return the path of the small table as a file."""
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(to_json(small_table)))
    return path
