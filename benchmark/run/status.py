"""`status`: print the outcome or the progress of a run in one line, then the details."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError, describe_error
from benchmark.run.failure import CONDITION, FULL_DISK, LOST_RANK, NOT_FINITE, REFUSED, SIGNAL
from benchmark.run.job_chain import JobChain, chain_lines, has_job, is_chain, read_chain, read_queue
from benchmark.run.phase_record import config_files
from benchmark.run.progress import (
    RunPlan,
    describe_condition,
    describe_phase,
    describe_step,
    describe_time_left,
)
from benchmark.run.state_file import STATE_FILE, Failure, RunState, read_state
from benchmark.run.summary import STEPS_FILE, read_evaluations
from openfold_opt.protein.directory_lock import lock_holder
from openfold_opt.train.observer import EvaluationReport, StepReport

TAIL_BYTES = 128 * 1024
"""Number of bytes that are read at the end of steps.jsonl: more than a hundred steps."""
NUM_SCORES = 3
CHECKPOINT_PATTERN = "checkpoints/step_" + "[0-9]" * 8
FAILURES = {
    NOT_FINITE: "not finite: a loss, a gradient or a score is NaN or infinite",
    FULL_DISK: "full disk: a file could not be written",
    LOST_RANK: "lost rank: another rank died, failed or hung",
    CONDITION: "condition failed: a phase did not reach the lDDT-Ca that it requires",
    SIGNAL: "interrupted: a signal ended the run at once",
    REFUSED: "refused: the run could not start with these options, data or machines",
}


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Content of an output directory."""

    state: RunState
    lock_holder_name: str | None
    """Process that holds the lock, as "process 12 on node1"; None if the run is not alive."""
    plan: RunPlan | None
    """None if the run ended before its configuration was known."""
    steps: Sequence[StepReport]
    """The last lines of steps.jsonl."""
    evaluations: Sequence[EvaluationReport]
    checkpoint: str | None
    """Name of the newest checkpoint."""

    @property
    def last_step(self) -> int:
        """The last optimizer step that was reported; 0 if there is none."""
        return self.steps[-1].step if self.steps else 0


def add_parser(subparsers) -> None:
    """Declare the command line of `status`."""
    parser = subparsers.add_parser(
        "status",
        help="progress of a run, or why it stopped",
        description="Print in one line whether a run is alive, has ended or was killed, and why; "
        "then its last step, last scores, error, and the time left or the command that continues "
        "it. For the directory of slurm/full_training.sh, it also prints the jobs of all phases. "
        "Exit code: 0 if the directory could be read, 2 if not.",
    )
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="output directory of a run, or directory of slurm/full_training.sh",
    )


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    try:
        if is_chain(args.run_dir):
            lines = status_of_chain(read_chain(args.run_dir))
        else:
            lines = status_lines(read_status(args.run_dir))
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f"{args.run_dir} cannot be read ({type(error).__name__}: {error}); expected the files "
            "of a run of this version"
        ) from error
    print("\n".join(lines))
    return 0


def read_status(folder: Path) -> RunStatus:
    """Read an output directory. Raises BenchmarkError if it is not one or cannot be read."""
    try:
        state = read_state(folder)
        if state is None:
            raise BenchmarkError(
                f"{folder} has no {STATE_FILE}; expected the output directory of a run"
            )
        # The lock is read before the other files. A run that ends meanwhile is reported as alive.
        lock_holder_name = lock_holder(folder)
        if lock_holder_name is None:
            # The run may have ended after run.json was read and before the lock was.
            state = read_state(folder) or state
        configs = config_files(folder)
        checkpoints = sorted(folder.glob(CHECKPOINT_PATTERN))
        return RunStatus(
            state=state,
            lock_holder_name=lock_holder_name,
            plan=_read_plan(configs[-1]) if configs else None,
            steps=_last_steps(folder / STEPS_FILE),
            evaluations=read_evaluations(folder),
            checkpoint=checkpoints[-1].name if checkpoints else None,
        )
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{folder} cannot be read: {describe_error(error)}") from error


def _read_plan(path: Path) -> RunPlan:
    try:
        return RunPlan.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def _last_steps(path: Path) -> list[StepReport]:
    """Return the last steps of steps.jsonl, without incomplete lines."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue  # The process died while writing, or the tail begins inside this line.
        records += [StepReport(**record)] if isinstance(record, dict) else []
    return records


def status_of_chain(chain: JobChain) -> list[str]:
    """Return the outcome of the run, a line for each phase and its job, then the details."""
    queue = read_queue([phase.job for phase in chain.phases if phase.job is not None])
    status = read_status(chain.run_dir) if chain.has_started else None
    is_alive = status is not None and status.lock_holder_name is not None
    phases = chain_lines(chain, queue, status and status.state, is_alive=is_alive)
    if status is None:
        details = [] if has_job(queue) else [f"{'continue':<13}{chain.command}"]
        return ["not started: no job has started the run", *phases, *details]
    # A job in the queue continues the run.
    command = "" if has_job(queue) or status.state.status == "finished" else chain.command
    first, *details = status_lines(status, command=command)
    return [first, *phases, *details]


def status_lines(status: RunStatus, *, command: str | None = None) -> list[str]:
    """Return the outcome, then a line for each detail that is known.

    command: the command that continues the run; None: that of the run itself.
    """
    target = None if status.plan is None else status.plan.final_lddt_ca
    scores = [
        f"{evaluation.lddt_ca:.4f} after step {evaluation.step}"
        for evaluation in reversed(status.evaluations[-NUM_SCORES:])
    ]
    plan, step = status.plan, status.last_step
    is_alive = status.lock_holder_name is not None
    left = describe_time_left(plan, status.steps, status.evaluations, includes_run=True)
    details = {
        "last step": describe_step(step, plan),
        "phase": describe_phase(step, plan),
        "condition": describe_condition(plan, status.evaluations),
        "last scores": f"lDDT-Ca {', '.join(scores)} (target {target})" if scores else "none",
        "checkpoint": status.checkpoint or "none",
        "error": _error(status.state.error),
        "time left": left if is_alive else None,
        "continue": None if is_alive else (_continue(status) if command is None else command),
    }
    return [outcome(status), *(f"{name:<13}{text}" for name, text in details.items() if text)]


def outcome(status: RunStatus) -> str:
    """Return the outcome or the progress of a run in one line."""
    state, plan = status.state, status.plan
    phase = None if plan is None else plan.phase
    step = f"{status.last_step} of {'unknown' if plan is None else plan.last_step}"
    if status.lock_holder_name is not None:
        left = describe_time_left(plan, status.steps, status.evaluations)
        in_phase = "" if phase is None else f"phase {phase.title}, "
        shown = describe_step(status.last_step, plan)
        text = f"running: {in_phase}step {shown}, {status.lock_holder_name}"
        return text + (f", {left}" if left else "")
    score = f", lDDT-Ca {status.evaluations[-1].lddt_ca:.4f}" if status.evaluations else ""
    if state.status == "finished":
        if state.outcome != "success":
            return f"target not reached: out of steps after step {step}{score}"
        reached = "target reached" if phase is None else "the last phase ended"
        return f"success: {reached} after step {step}{score}"
    if state.status == "phase complete":
        title = "" if phase is None else f"{phase.title} ended "
        return f"phase complete: {title}after step {step}{score}"
    if state.status == "preempted":
        return f"preempted: stopped by a signal after step {step}, with a checkpoint"
    if state.status == "failed":
        return _describe(state.error)
    return f"killed: the process ended without recording why, after step {step}"


def _describe(error: Failure | None) -> str:
    if error is None:
        raise KeyError("error")  # run() reports that run.json lacks this key.
    text = FAILURES.get(error.kind, f"failed: {error.type}")
    # For other errors, error.step is the last step that was reported before the error.
    where = "at" if error.kind in (NOT_FINITE, LOST_RANK) else "after"
    at_step = "" if error.step is None else f", {where} step {error.step}"
    return text + at_step + ("" if error.rank is None else f", rank {error.rank}")


def _error(error: Failure | None) -> str | None:
    if error is None:
        return None
    samples = f"; samples {', '.join(error.sample_ids)}" if error.sample_ids else ""
    message = _without_tracebacks(error.message)
    return f"{error.type}: {message}{samples} (traceback in {STATE_FILE})"


def _without_tracebacks(message: str) -> str:
    """Remove the tracebacks of worker processes, empty lines and repeated lines from a message."""
    lines: list[str] = []
    is_in_traceback = False
    for line in message.splitlines():
        is_in_traceback = line.startswith("Traceback (most recent call last)") or (
            is_in_traceback and line.startswith(" ")
        )
        # The last line of a traceback is usually also the end of the line before the traceback.
        is_repeated = any(previous.endswith(line) for previous in lines)
        if line and not is_in_traceback and not is_repeated:
            lines.append(line)
    return "\n".join(lines)


def _continue(status: RunStatus) -> str | None:
    """Return the command that continues the run, or, without a checkpoint, starts it again."""
    command = status.state.command
    if command is None:
        return None
    plan = status.plan
    if status.state.status == "phase complete" and plan is not None and plan.next_phase is not None:
        ranks = " (on the ranks of that phase)" if plan.num_ranks > 1 else ""
        return with_phase(command, plan.next_phase.name) + ranks
    num_ranks = 1 if status.plan is None else status.plan.num_ranks
    ranks = (
        f" (on {num_ranks} ranks, as it was started: by torchrun, by srun, or by run_and_time.sh "
        "with these options)"
        if num_ranks > 1
        else ""
    )
    again = "" if status.state.resumable else " (starts again: there is no checkpoint)"
    return command + ranks + again


def with_phase(command: str, name: str) -> str:
    """Return the command line of a run with the option `--phase` for another phase."""
    words = shlex.split(command)
    if "--phase" in words:
        words[words.index("--phase") + 1] = name
    else:
        words += ["--phase", name]
    return shlex.join(words)
