"""Check that the time limit of a job is long enough for its runs."""

from __future__ import annotations

from benchmark.finding import NOTE, PASS, Finding
from benchmark.plan.time_limit import format_time_limit, needed_seconds, read_time_limit

SUBJECT = "time limit"


def check_time_limit(
    limit: str, *, run_seconds: float | None, num_runs: int, is_phase: bool = False
) -> Finding:
    """Compare a time limit with the predicted time of all runs. A short one is a warning.

    Args:
        limit: the limit in a format of sbatch --time.
        run_seconds: predicted time of a run; None: unknown.
        num_runs: number of runs that the job makes, one after another.
        is_phase: whether the job trains a phase, and continues after the limit.

    Raises:
        ValueError: The limit has another format.
    """
    limit_seconds = read_time_limit(limit)
    allowed = f"the limit of the job is {format_time_limit(limit_seconds)}"
    if run_seconds is None:
        text = f"{allowed}; the time of a run is not predicted (python -m benchmark plan slurm)"
        return Finding(state=NOTE, subject=SUBJECT, text=text)
    needed = needed_seconds(run_seconds, num_runs)
    text = f"{allowed}; {num_runs} runs are predicted to take {format_time_limit(needed)}"
    if needed <= limit_seconds:
        return Finding(state=PASS, subject=SUBJECT, text=text)
    result = (
        "the job is requeued and continues the phase"
        if is_phase
        else "the run that reaches the limit is resumed, and a resumed run is not a result"
    )
    remedy = f"submit with sbatch --time={format_time_limit(needed)} or longer, or a smaller NEXP"
    return Finding(state=NOTE, subject=SUBJECT, text=f"WARNING: {text}; {result}; {remedy}")
