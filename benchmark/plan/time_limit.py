"""Time limits of Slurm jobs, and the limit that a number of runs needs."""

from __future__ import annotations

import math
import re

MARGIN = 1.5
"""Limit of a job divided by its predicted time. Runs with other seeds need other numbers of steps:
NVIDIA's ten runs on 128 GPUs took 24 to 34 minutes."""
SETUP_SECONDS = 900
"""Time of a job before its first run: environment, checks of the nodes."""
_STEP_SECONDS = 900
_FORMATS = (
    r"(?P<minutes>\d+)",
    r"(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+):(?P<minutes>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
)
UNLIMITED = "UNLIMITED"
_SECONDS_OF = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def read_time_limit(text: str) -> float:
    """Return the seconds of a time limit in a format of sbatch --time; infinity without a limit.

    Raises:
        ValueError: It has none of the formats.
    """
    if text == UNLIMITED:
        return math.inf
    for pattern in _FORMATS:
        found = re.fullmatch(pattern, text)
        if found is not None:
            return sum(_SECONDS_OF[unit] * int(count) for unit, count in found.groupdict().items())
    raise ValueError(
        f"the time limit is {text!r}; expected a format of sbatch --time, such as 90 (minutes), "
        "4:00:00 or 2-00:00:00"
    )


def format_time_limit(seconds: float) -> str:
    """Return a time limit as H:MM:SS, from a day on as D-HH:MM:SS."""
    if seconds == math.inf:
        return UNLIMITED
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{minutes:02}:{rest:02}"
    return f"{days}-{hours:02}:{clock}" if days else f"{hours}:{clock}"


def needed_seconds(run_seconds: float, num_runs: int) -> float:
    """Return the predicted time of a job that makes runs one after another."""
    return SETUP_SECONDS + num_runs * run_seconds


def time_limit(run_seconds: float, num_runs: int) -> float:
    """Return a limit for a job, a multiple of a quarter of an hour."""
    seconds = SETUP_SECONDS + MARGIN * num_runs * run_seconds
    return _STEP_SECONDS * math.ceil(seconds / _STEP_SECONDS)
