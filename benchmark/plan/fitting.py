"""Fit the factor of each code base to published steps, never to the one that is predicted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.published import Published, Setup
from benchmark.plan.step_counts import NVIDIA, REFERENCE, CountTable, StepCounts
from benchmark.plan.step_model import Factors, Layout, StepTime, predict_step
from benchmark.plan.systems import System, load_system

BENCHMARK_SHAPE = "crop 256, 124 clusters, 1024 extra, 4 templates, 48 blocks, c_m 256, c_z 128"
_LOW, _HIGH = 0.05, 20.0
"""Bounds of a factor."""


def layout_of(setup: Setup) -> Layout:
    """Return the layout of a published result."""
    return Layout(
        code=setup.code,
        num_gpus=setup.num_gpus,
        dap=setup.dap,
        evaluation_ranks=setup.evaluation_ranks,
        local_batch=setup.local_batch,
        accumulation=setup.accumulation,
    )


def counts_of(layout: Layout, table: CountTable) -> StepCounts:
    """Return the counts of a layout with samples of the benchmark."""
    return table.find(code=layout.code, shape=BENCHMARK_SHAPE, dap=layout.dap)


def wait_of(code: str, results: Sequence[Published]) -> float:
    """Return the mean wait for a batch in the logs of a code base; 0 if they do not have it."""
    waits = [
        result.wait_seconds
        for result in results
        if result.setup.code == code and result.wait_seconds is not None
    ]
    return statistics.fmean(waits) if waits else 0.0


def predict_published(
    setup: Setup, table: CountTable, factors: Factors, *, loader_seconds: float
) -> StepTime:
    """Return the step of a published result."""
    layout = layout_of(setup)
    return predict_step(
        counts_of(layout, table),
        load_system(setup.system),
        layout,
        factors,
        loader_seconds=loader_seconds,
    )


def fit_factor(
    layout: Layout,
    system: System,
    counts: StepCounts,
    measured_seconds: float,
    *,
    loader_seconds: float = 0.0,
) -> float:
    """Return the factor with which the step of a layout takes the measured time."""

    def total(factor: float) -> float:
        factors = Factors(by_code={layout.code: factor})
        return predict_step(counts, system, layout, factors, loader_seconds=loader_seconds).total

    low, high = math.log(_LOW), math.log(_HIGH)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if total(math.exp(middle)) < measured_seconds else (low, middle)
    return math.exp((low + high) / 2)


def fit_factors(results: Sequence[Published], table: CountTable) -> Factors:
    """Return a factor for each code base: the geometric mean over its results."""
    logs: dict[str, list[float]] = {}
    for result in results:
        setup = result.setup
        if CODE_BASES[setup.code].is_fitted:
            layout = layout_of(setup)
            factor = fit_factor(
                layout,
                load_system(setup.system),
                counts_of(layout, table),
                step_seconds(result),
                loader_seconds=result.wait_seconds or 0.0,
            )
            logs.setdefault(setup.code, []).append(math.log(factor))
    return Factors(
        by_code={code: math.exp(statistics.fmean(values)) for code, values in logs.items()}
    )


@dataclass(frozen=True, kw_only=True)
class SingleRow:
    """A published step of a code base on one kind of GPU, outside of the logs."""

    source: str
    system: str
    layout: Layout
    seconds: float


SINGLE_ROWS = {
    REFERENCE: SingleRow(
        source="ScaleFold's step on A100 (recalled)",
        system="a100_80_sxm",
        layout=Layout(code=REFERENCE, num_gpus=128),
        seconds=6.76,
    ),
    NVIDIA: SingleRow(
        source="ScaleFold's step on H100 (recalled)",
        system="h100_sxm",
        layout=Layout(code=NVIDIA, num_gpus=128),
        seconds=1.80,
    ),
}
"""What the factor of a code base is fitted to if no other log has it: one sample on each GPU."""


def fit_single_row(code: str, table: CountTable) -> Factors:
    """Return the factor of a code base from its row of SINGLE_ROWS."""
    row = SINGLE_ROWS[code]
    counts, system = counts_of(row.layout, table), load_system(row.system)
    return Factors(by_code={code: fit_factor(row.layout, system, counts, row.seconds)})


def step_seconds(result: Published) -> float:
    """Return the measured seconds of an optimizer step."""
    return result.micro_step_seconds * result.setup.accumulation


def baseline_seconds(result: Published, others: Sequence[Published], table: CountTable) -> float:
    """Return the step if it took a constant times matrix work / peak, the same for all systems.

    The constant is the geometric mean over the other results.
    """
    constants = [step_seconds(other) / _work_over_peak(other, table) for other in others]
    return statistics.geometric_mean(constants) * _work_over_peak(result, table)


def _work_over_peak(result: Published, table: CountTable) -> float:
    setup = result.setup
    counts = table.find(code=setup.code, shape=BENCHMARK_SHAPE, dap=1)
    gradient, iteration = counts.total_flops
    peak = load_system(setup.system).chip.peak
    rate = peak.bf16 if setup.code.startswith("nvidia") else peak.tf32
    return (
        (gradient + 1.5 * iteration)
        * setup.batch
        / ((setup.num_gpus - setup.evaluation_ranks) * rate)
    )
