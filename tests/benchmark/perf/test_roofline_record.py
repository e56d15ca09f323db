"""The stored roofline of the benchmark's step is that of the present code."""

import json

import pytest

from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.roofline import RooflineModel
from benchmark.perf.tools.roofline_count import (
    RooflineMetrics,
    build_metrics,
    fast_config,
    trace_steps,
)
from benchmark.presets import build_preset
from benchmark.results.records_command import RESULTS
from openfold_opt.kernels.chips import chip_named

RECORD = RESULTS / "measured" / "roofline_mlperf_reference_h200.json"
REMEDY = (
    "if this is intended, run `python -m benchmark perf counts --roofline --json "
    f"results/measured/{RECORD.name}` and `python -m benchmark results`, and add a line with the "
    "reason to docs/lab_log.md"
)


@pytest.fixture(scope="module")
def stored():
    figures = json.loads(RECORD.read_text(encoding="utf-8"))["figures"]
    return from_json(RooflineMetrics, figures["roofline"])


@pytest.fixture(scope="module")
def counted(stored):
    """Count again, without machine code: TRITON_INTERPRET is set in this process."""
    config = fast_config(build_preset("mlperf_reference"), dap_size=stored.dap)
    chip = chip_named(stored.device)
    model = RooflineModel(
        chip=chip,
        rates=chip.sustained,
        efficiencies=stored.efficiencies,
        code=None,
    )
    return build_metrics(config, trace_steps(config), model)


def test_launches_bytes_and_floor_of_the_step_are_those_of_the_record(stored, counted):
    assert stored.rates == counted.rates, REMEDY
    assert stored.steps.keys() == counted.steps.keys()
    for name, work in counted.steps.items():
        before = stored.steps[name]
        for quantity in ("launches", "bytes", "flops"):
            assert getattr(work, quantity) == getattr(before, quantity), (
                f"{quantity} with {name} recycling iterations changed from "
                f"{getattr(before, quantity):,} to {getattr(work, quantity):,}; {REMEDY}"
            )
        assert work.floor_seconds == pytest.approx(before.floor_seconds, rel=1e-9), REMEDY


def test_the_modules_of_the_step_are_those_of_the_record(stored, counted):
    def counts(metrics):
        return {
            f"{each.module}, {each.direction}": (each.work.launches, each.work.bytes)
            for each in metrics.modules
        }

    before, now = counts(stored), counts(counted)
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    assert changed == [], REMEDY


def test_the_modules_and_the_kernels_each_sum_to_the_mean_step(counted):
    mean = counted.steps["mean"]
    for parts in (counted.modules, counted.kernels):
        assert sum(part.work.launches for part in parts) == pytest.approx(mean.launches)
        assert sum(part.work.bytes for part in parts) == pytest.approx(mean.bytes)
        assert sum(part.work.floor_seconds for part in parts) == pytest.approx(mean.floor_seconds)
