"""Status of a training whose phases are Slurm jobs, from the files of slurm/full_training.sh.

CHAIN_DIR/phases.txt   name, configuration and number of ranks of each phase, in order
CHAIN_DIR/jobs.txt     a line for each submitted job: phase, number, date
CHAIN_DIR/command.txt  the command that submitted them, which also continues the training
CHAIN_DIR/run_1/       output directory of the run
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.run.state_file import STATE_FILE, RunState

PHASES_FILE = "phases.txt"
JOBS_FILE = "jobs.txt"
COMMAND_FILE = "command.txt"
RUN_FOLDER = "run_1"
LIVE_STATES = (
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED"),
    *("COMPLETING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SIGNALING"),
)
"""States of jobs that have not ended, as squeue prints them."""
QUEUE_SECONDS = 20
"""Limit for the answer of squeue."""


@dataclass(frozen=True, kw_only=True)
class ChainPhase:
    """A phase and its newest job."""

    name: str
    config: str
    """Name or path of the Slurm configuration."""
    num_ranks: int
    job: str | None
    """Number of the newest job; None: it was not submitted."""


@dataclass(frozen=True, kw_only=True)
class JobChain:
    """Content of the directory of a training in several jobs."""

    folder: Path
    phases: Sequence[ChainPhase]
    command: str
    """The command that continues the training."""

    @property
    def run_dir(self) -> Path:
        """The output directory of the run, which exists once the first job has started it."""
        return self.folder / RUN_FOLDER

    @property
    def has_started(self) -> bool:
        """Whether the first job has started the run."""
        return (self.run_dir / STATE_FILE).exists()


def is_chain(folder: Path) -> bool:
    """Return whether a directory is one of slurm/full_training.sh."""
    return (folder / PHASES_FILE).is_file()


def read_chain(folder: Path) -> JobChain:
    """Read the files of a directory. Raises BenchmarkError if they are damaged."""
    try:
        rows = [line.split() for line in (folder / PHASES_FILE).read_text().splitlines()]
        path = folder / JOBS_FILE
        # The submission may have ended before its first job.
        jobs = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        newest = {words[0]: words[1] for words in jobs}
        phases = [
            ChainPhase(name=name, config=config, num_ranks=int(ranks), job=newest.get(name))
            for name, config, ranks in rows
        ]
        return JobChain(
            folder=folder,
            phases=phases,
            command=(folder / COMMAND_FILE).read_text().strip(),
        )
    except (OSError, ValueError, IndexError) as error:
        raise BenchmarkError(
            f"{folder} cannot be read ({describe_error(error)}); expected the files of "
            "slurm/full_training.sh"
        ) from error


def read_queue(jobs: Sequence[str]) -> Mapping[str, str]:
    """Return the state of each job that is in Slurm's queue, such as "RUNNING".

    Returns an empty mapping without squeue, or if it does not answer.
    """
    if shutil.which("squeue") is None or not jobs:
        return {}
    command = [
        "squeue",
        "--noheader",
        "--states=all",
        "--format=%i %T %r",
        f"--jobs={','.join(jobs)}",
    ]
    try:
        shown = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=QUEUE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    states = {}
    for line in shown.stdout.splitlines():
        number, state, *reason = line.split(maxsplit=2)
        waits = state == "PENDING" and reason and reason[0] != "None"
        states[number] = f"{state} ({reason[0]})" if waits else state
    return states


def has_job(queue: Mapping[str, str]) -> bool:
    """Return whether a job waits or runs. Slurm lists jobs for minutes after their end."""
    return any(state.split()[0] in LIVE_STATES for state in queue.values())


def chain_lines(
    chain: JobChain, queue: Mapping[str, str], state: RunState | None, *, is_alive: bool
) -> list[str]:
    """Return a line for each phase.

    Args:
        queue: states of jobs, as read_queue returns them.
        state: content of run.json; None: no job has started the run.
        is_alive: whether a process of the run is alive.
    """
    width = max(len(phase.name) for phase in chain.phases)
    lines = []
    for phase in chain.phases:
        job = "not submitted"
        if phase.job is not None:
            job = f"job {phase.job} {queue.get(phase.job, 'not in the queue')}"
        progress = phase_state(phase.name, state, is_alive=is_alive)
        ranks = f"{phase.num_ranks} ranks, {phase.config}"
        lines.append(f"phase {phase.name:<{width}}  {progress}; {job}; {ranks}")
    return lines


def phase_state(name: str, state: RunState | None, *, is_alive: bool) -> str:
    """Return "complete", "running", "not started", or how the phase stopped."""
    if state is None:
        return "not started"
    if state.outcome == "success" or name in state.completed_phases:
        return "complete"
    if state.phase != name:
        return "not started"
    if is_alive:
        return "running"
    if state.error is not None:
        return f"failed: {state.error.kind}"
    if state.outcome is not None:
        return state.outcome
    return "killed" if state.status in ("starting", "running") else state.status
