"""Predict every published result from the others, and compare."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmark.command_line import BenchmarkError
from benchmark.plan.convergence import Evaluation, run_time, samples_to_080
from benchmark.plan.evaluation_time import evaluation_seconds
from benchmark.plan.fitting import (
    SINGLE_ROWS,
    baseline_seconds,
    counts_of,
    fit_factors,
    fit_single_row,
    layout_of,
    predict_published,
    step_seconds,
    wait_of,
)
from benchmark.plan.other_results import OtherRow, other_rows
from benchmark.plan.published import Published
from benchmark.plan.scaling_curve import CurvePoint, scaling_curve
from benchmark.plan.search_check import SearchCheck, check_search
from benchmark.plan.step_counts import CountTable
from benchmark.plan.step_model import Factors
from benchmark.plan.systems import load_system


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """Seconds of an optimizer step of one published system."""

    title: str
    measured: float
    predicted: float
    parts: dict[str, float]
    baseline: float
    factor: float
    """Factor of the code base that the prediction used."""
    fitted_on: str
    """Titles of the results that the factor is from."""

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1

    @property
    def baseline_error(self) -> float:
        """Relative error of the baseline."""
        return self.baseline / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """Minutes to 0.8 of one published system."""

    title: str
    least: float
    mean: float
    most: float
    predicted: float
    evaluation_measured: float
    """Seconds of an evaluation."""
    evaluation_predicted: float

    @property
    def error(self) -> float:
        """Relative error against the mean."""
        return self.predicted / self.mean - 1

    @property
    def evaluation_error(self) -> float:
        """Relative error of the time of an evaluation."""
        return self.evaluation_predicted / self.evaluation_measured - 1

    @property
    def is_within(self) -> bool:
        """Whether the prediction is within the spread of the runs."""
        return self.least <= self.predicted <= self.most


@dataclass(frozen=True, kw_only=True)
class Validation:
    """All comparisons."""

    steps: list[StepRow]
    runs: list[RunRow]
    others: list[OtherRow]
    curves: dict[str, list[CurvePoint]]
    """Code base -> its speedup over GPUs."""
    search: SearchCheck | None
    """None without the counts of all DAP sizes."""
    num_factors: int
    mean_error: float
    worst_error: float
    baseline_mean: float
    baseline_worst: float
    notes: list[str]


def validate(results: Sequence[Published], table: CountTable) -> Validation:
    """Compare all results; the system that is predicted is left out of every fit."""
    steps = [_step_row(result, _without(result, results), table) for result in results]
    runs = [
        _run_row(result, step, _without(result, results), table)
        for result, step in zip(results, steps)
    ]
    others, notes = other_rows(results, table)
    search = None
    try:
        search = check_search(results, table)
    except BenchmarkError as error:
        notes.append(f"search over 2,080 GPUs: {error}")
    factors = fit_factors(results, table)
    errors = [abs(row.error) for row in steps]
    baseline = [abs(row.baseline_error) for row in steps]
    return Validation(
        steps=steps,
        runs=runs,
        others=others,
        curves={code: scaling_curve(code, table, factors) for code in factors.by_code},
        search=search,
        num_factors=len(factors.by_code),
        mean_error=statistics.fmean(errors),
        worst_error=max(errors),
        baseline_mean=statistics.fmean(baseline),
        baseline_worst=max(baseline),
        notes=notes,
    )


def _without(result: Published, results: Sequence[Published]) -> list[Published]:
    return [other for other in results if other is not result]


def _step_row(result: Published, others: Sequence[Published], table: CountTable) -> StepRow:
    code = result.setup.code
    factors = fit_factors(others, table)
    sources = [other.setup.title for other in others if other.setup.code == code]
    if not sources:
        factors, sources = fit_single_row(code, table), [SINGLE_ROWS[code].source]
    step = predict_published(result.setup, table, factors, loader_seconds=wait_of(code, others))
    return StepRow(
        title=result.setup.title,
        measured=step_seconds(result),
        predicted=step.total,
        parts=step.parts,
        baseline=baseline_seconds(result, others, table),
        factor=factors.of(code),
        fitted_on=" and ".join(sources),
    )


def _run_row(
    result: Published, step: StepRow, others: Sequence[Published], table: CountTable
) -> RunRow:
    setup = result.setup
    is_concurrent = setup.evaluation_ranks > 0
    starts = [
        other.start_seconds
        for other in others
        if (other.setup.evaluation_ranks > 0) == is_concurrent
    ]
    layout = layout_of(setup)
    seconds = evaluation_seconds(
        counts_of(replace(layout, dap=1), table),
        load_system(setup.system),
        layout,
        Factors(by_code={setup.code: step.factor}),
        crop=256,
    )
    evaluation = Evaluation(
        every_steps=setup.evaluation_steps, seconds=seconds, is_concurrent=is_concurrent
    )
    predicted = run_time(
        samples=samples_to_080(setup.batch).mean,
        batch=setup.batch,
        step_seconds=step.predicted,
        evaluation=evaluation,
        start=statistics.fmean(starts),
    )
    return RunRow(
        title=setup.title,
        least=min(result.minutes),
        mean=statistics.fmean(result.minutes),
        most=max(result.minutes),
        predicted=predicted.total / 60,
        evaluation_measured=result.evaluation_seconds,
        evaluation_predicted=seconds,
    )
