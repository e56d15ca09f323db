"""Check that the time limit of a job is long enough for its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.finding import NOTE, PASS, Finding
from benchmark.plan.run_seconds import predicted_seconds, system_of_gpu
from benchmark.plan.step_counts import STORED
from benchmark.plan.time_limit import format_time_limit, needed_seconds, read_time_limit
from openfold_opt.train.phases import Phase

SUBJECT = "time limit"


@dataclass(frozen=True, kw_only=True)
class RunPrediction:
    """The predicted time of a run."""

    seconds: float | None
    """None if there is no prediction."""
    source: str
    """Where it comes from, or why there is none."""


def predict_run(
    phase: Phase,
    gpus: Sequence[str],
    *,
    num_ranks: int,
    preset: str,
    counts: Path = STORED,
) -> RunPrediction:
    """Predict a run on the nodes of this job.

    gpus: names of the GPUs of a node, as their driver reports them.
    """
    system = system_of_gpu(gpus[0], gpus_per_node=len(gpus)) if gpus else None
    if system is None:
        found = f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU"
        return RunPrediction(
            seconds=None, source=f"{found} in a node, which no system of `plan systems` has"
        )
    try:
        seconds = predicted_seconds(phase, system, num_ranks, preset=preset, counts=counts)
    except BenchmarkError as error:
        return RunPrediction(seconds=None, source=str(error))
    reason = "the samples to the target of the preset are unknown"
    return RunPrediction(seconds=seconds, source=reason if seconds is None else system.name)


def check_time_limit(
    limit: str, prediction: RunPrediction, *, num_runs: int, is_phase: bool = False
) -> Finding:
    """Compare a time limit with the predicted time of all runs. A short one is a warning.

    Args:
        limit: the limit in a format of sbatch --time.
        prediction: predicted time of a run.
        num_runs: number of runs that the job makes, one after another.
        is_phase: whether the job trains a phase, and continues after the limit.

    Raises:
        ValueError: The limit has another format.
    """
    limit_seconds = read_time_limit(limit)
    allowed = f"the limit of the job is {format_time_limit(limit_seconds)}"
    if prediction.seconds is None:
        text = f"{allowed}; the time of a run is not predicted: {prediction.source}"
        return Finding(state=NOTE, subject=SUBJECT, text=text)
    needed = needed_seconds(prediction.seconds, num_runs)
    text = (
        f"{allowed}; {num_runs} runs are predicted to take {format_time_limit(needed)} "
        f"({prediction.source})"
    )
    if needed <= limit_seconds:
        return Finding(state=PASS, subject=SUBJECT, text=text)
    result = (
        "the job is requeued and continues the phase"
        if is_phase
        else "the run that reaches the limit is resumed, and a resumed run is not a result"
    )
    remedy = f"submit with sbatch --time={format_time_limit(needed)} or longer, or a smaller NEXP"
    return Finding(state=NOTE, subject=SUBJECT, text=f"WARNING: {text}; {result}; {remedy}")
