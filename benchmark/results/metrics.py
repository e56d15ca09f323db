"""Compute the metrics of a set of runs that tables, files and plots show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.results.gather import ResultSet
from benchmark.results.logged_run import LoggedRun
from benchmark.results.peak import peak_tflop_per_second, share_of_peak
from benchmark.results.reference_points import (
    NORMALIZED,
    PASS,
    check_convergence,
    reference_mean,
    trimmed_mean,
)
from openfold_opt.kernels.chips import find_chip

PLACEHOLDER = "PLACEHOLDER"
"""Appears in the logs of some submitters in place of their name."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of a set of runs. None means unknown. Times are wall-clock times."""

    submitter: str
    system: str
    division: str
    preset: str | None
    is_throughput: bool
    """Whether the runs were concurrent.

    The result is then the time from the first run_start to the last run_stop.
    """
    nodes: int
    accelerators: int
    """Number in the whole job; 0 if only CPUs were used."""
    accelerators_per_run: int
    """Number in one run, which differs from the job only for concurrent runs."""
    accelerator: str | None
    ranks: int
    dap_size: int | None
    is_dap_size_inferred: bool
    """Whether the DAP size was inferred from ranks and batch, because the log does not have it."""
    precision: str | None
    batch: int
    accumulation: int
    counts_micro_steps: bool
    """Whether batch and step are those of a micro-step, as in the MLCommons reference."""
    runs: int
    converged: int
    """Number of runs that reached the target."""
    rejected: int
    """Number of other logs in the folder, which are not results."""
    minutes_min: float | None
    minutes_trimmed_mean: float | None
    """None for fewer than three runs, or if more than one did not converge.

    One run that did not converge counts as the slowest.
    """
    minutes_max: float | None
    """None if a run did not converge."""
    minutes_side_by_side: float | None
    """First run_start to last run_stop of the converged runs, not normalized.

    mlperf-logging's summarizer computes it in the same way.
    """
    samples_trimmed_mean: float | None
    samples_min: int | None
    samples_max: int | None
    reference_samples: float | None
    """Mean samples that the MLCommons reference needs at this batch, if it is known."""
    verdict: str
    """Outcome, message and factor of the RCP check (Convergence in reference_points.py)."""
    verdict_message: str
    rcp_factor: float
    minutes_normalized: float | None
    """minutes_trimmed_mean times rcp_factor; None if the RCP check failed or was not run."""
    seconds_per_step: float | None
    """Median over the training intervals, without the first of each run."""
    seconds_per_step_all_cycles: float | None
    """Mean over all training intervals."""
    samples_per_second: float | None
    """Speed of one run."""
    share_of_peak: float | None
    """0 to 1, as defined in peak.py."""
    data_wait_seconds_per_step: float | None
    """Mean, without the first training interval of each run."""
    evaluation_seconds: float | None
    """Median duration of an evaluation."""
    evaluation_minutes_alone: float | None
    """Mean time per run of evaluation without concurrent training."""
    init_minutes: float | None
    """Longest initialization of a run, before run_start; the rules allow 30."""


def compute_metrics(result_set: ResultSet, *, accelerator: str | None = None) -> Metrics:
    """Compute the metrics of a set. accelerator: its name, if neither log nor path contains it."""
    runs, origin = result_set.runs, result_set.origin
    first = runs[0]
    # A run that did not converge counts as infinitely long.
    samples = [run.samples if run.is_converged else math.inf for run in runs]
    accelerator = (
        origin.accelerator or accelerator or _accelerator_in(f"{first.platform} {origin.system}")
    )
    converged = [run for run in runs if run.is_converged]
    per_run, whole = _num_accelerators(result_set)
    convergence = check_convergence(runs)
    times = _times(runs)
    trimmed = times["minutes_trimmed_mean"]
    dap_size = origin.dap_size or _infer_dap_size(first)
    return Metrics(
        submitter=origin.submitter or _real_name(first.organization),
        system=origin.system or _real_name(first.platform),
        division=first.division,
        preset=origin.preset,
        is_throughput=origin.is_throughput,
        nodes=_num_nodes(result_set),
        accelerators=whole,
        accelerators_per_run=per_run,
        accelerator=accelerator,
        ranks=first.num_ranks,
        dap_size=dap_size,
        is_dap_size_inferred=origin.dap_size is None and dap_size is not None,
        precision=first.precision,
        batch=first.batch,
        accumulation=first.accumulation,
        counts_micro_steps=first.counts_micro_steps,
        runs=len(runs),
        converged=len(converged),
        rejected=result_set.num_rejected,
        minutes_side_by_side=_side_by_side(converged)
        if origin.is_throughput and converged
        else None,
        samples_trimmed_mean=_finite(trimmed_mean(samples)),
        samples_min=_finite(min(samples)),
        samples_max=_finite(max(samples)),
        reference_samples=reference_mean(first.batch) if first.has_closed_sample else None,
        verdict=convergence.outcome,
        verdict_message=convergence.message,
        rcp_factor=convergence.factor,
        minutes_normalized=trimmed * convergence.factor
        if convergence.outcome in (PASS, NORMALIZED) and trimmed is not None
        else None,
        **times,
        **_speed(runs, num_accelerators=per_run, accelerator=accelerator),
    )


def _times(runs: Sequence[LoggedRun]) -> dict[str, float | None]:
    minutes = [run.minutes if run.is_converged else math.inf for run in runs]
    inits = [run.run_start_ms - run.init_start_ms for run in runs if run.init_start_ms is not None]
    return {
        "minutes_min": _finite(min(minutes)),
        "minutes_trimmed_mean": _finite(trimmed_mean(minutes)),
        "minutes_max": _finite(max(minutes)),
        "init_minutes": max(inits) / 60e3 if inits else None,
    }


def _speed(
    runs: Sequence[LoggedRun], *, num_accelerators: int, accelerator: str | None
) -> dict[str, float | None]:
    batch = runs[0].batch
    later = [seconds for run in runs for seconds in step_seconds(run)[1:]]
    every = [seconds for run in runs for seconds in step_seconds(run)]
    step = statistics.median(later or every) if every else None
    rate = batch / step if step else None
    peak = peak_tflop_per_second(accelerator, runs[0].precision)
    # STEP_TFLOP is that of a sample of the closed division.
    has_share = (
        rate is not None and peak is not None and num_accelerators > 0 and runs[0].has_closed_sample
    )
    waits = [wait for run in runs for wait in (run.data_waits[1:] or run.data_waits)]
    evaluations = [
        evaluation.stop - evaluation.start for run in runs for evaluation in run.evaluations
    ]
    return {
        "seconds_per_step": step,
        "seconds_per_step_all_cycles": statistics.fmean(every) if every else None,
        "samples_per_second": rate,
        "share_of_peak": share_of_peak(rate, num_accelerators=num_accelerators, peak=peak)
        if has_share
        else None,
        "data_wait_seconds_per_step": statistics.fmean(waits) if waits else None,
        "evaluation_seconds": statistics.median(evaluations) if evaluations else None,
        "evaluation_minutes_alone": statistics.fmean(evaluation_alone(run) for run in runs) / 60,
    }


def step_seconds(run: LoggedRun) -> list[float]:
    """Return the mean seconds of a step of `batch` samples, for each training interval."""
    return [
        (interval.stop - interval.start) * run.batch / (interval.samples - interval.samples_before)
        for interval in run.intervals
    ]


def evaluation_alone(run: LoggedRun) -> float:
    """Return the seconds in which an evaluation was running and training was not."""
    training = [(interval.start, interval.stop) for interval in run.intervals]
    if run.open_interval_start is not None:
        training.append((run.open_interval_start, run.minutes * 60))
    alone = 0.0
    for evaluation in run.evaluations:
        overlaps = [
            min(evaluation.stop, stop) - max(evaluation.start, start) for start, stop in training
        ]
        alone += (
            evaluation.stop - evaluation.start - sum(overlap for overlap in overlaps if overlap > 0)
        )
    return alone


def ran_concurrently(runs: Sequence[LoggedRun]) -> bool:
    """Return whether there was a time when all of several runs were running."""
    return len(runs) > 1 and max(run.run_start_ms for run in runs) < min(
        run.run_stop_ms for run in runs
    )


def _side_by_side(runs: Sequence[LoggedRun]) -> float:
    """Return the minutes from the first run_start to the last run_stop."""
    return (max(run.run_stop_ms for run in runs) - min(run.run_start_ms for run in runs)) / 60e3


def _num_accelerators(result_set: ResultSet) -> tuple[int, int]:
    """Return the number of accelerators of one run and of the whole job.

    A rank has one accelerator. The log of a throughput run may have the nodes of its own run or
    those of the whole job.
    """
    run = result_set.runs[0]
    logged = run.num_nodes * run.accelerators_per_node
    if not logged or not result_set.origin.is_throughput:
        return logged, logged
    per_run = min(logged, run.num_ranks)
    return per_run, max(logged, per_run * len(result_set.runs))


def _num_nodes(result_set: ResultSet) -> int:
    """Return the number of nodes of the whole job."""
    run = result_set.runs[0]
    if (
        not result_set.origin.is_throughput
        or run.num_nodes * run.accelerators_per_node > run.num_ranks
    ):
        return run.num_nodes
    return run.num_nodes * len(result_set.runs)


def _infer_dap_size(run: LoggedRun) -> int | None:
    """Return the number of ranks per sample, assuming that the remaining ranks evaluate.

    Returns None if a rank has several samples, or if there are no accelerators.
    """
    micro_batch = run.batch // run.accumulation if run.is_ours else run.batch
    if not run.accelerators_per_node or not micro_batch:
        return None
    return run.num_ranks // micro_batch or None


def _real_name(name: str) -> str:
    return "unnamed" if PLACEHOLDER in name else name


def _accelerator_in(text: str) -> str | None:
    """Return the known accelerator that the name of a system contains, if any."""
    chip = find_chip(text)
    return None if chip is None else chip.short_name


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
