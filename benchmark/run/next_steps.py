"""The last lines of a run: its files, and the commands that come next."""

from __future__ import annotations

import shlex
from pathlib import Path

from benchmark.mlperf.log_order import DEFAULT_TARGET
from benchmark.run.curves import EVALUATION_CURVE, LOSS_CURVE
from benchmark.run.output_directory import FIRST_LOG
from benchmark.run.summary import EVALUATIONS_FILE, STEPS_FILE, SUMMARY_FILE
from benchmark.run.tensorboard import TENSORBOARD_FOLDER
from openfold_opt.train.build_run import CHECKPOINT_FOLDER
from openfold_opt.train.observer import NullObserver, RunSummary
from openfold_opt.train.phase_goal import PHASE_COMPLETE

_FILES = {
    SUMMARY_FILE: "outcome, speed and evaluations as text",
    EVALUATION_CURVE: "lDDT-Ca over samples",
    LOSS_CURVE: "the loss over steps",
    STEPS_FILE: "every step as JSON",
    EVALUATIONS_FILE: "every evaluation as JSON",
    TENSORBOARD_FOLDER: "event files for TensorBoard",
    "config.json": "the resolved configuration, versions and machine",
    CHECKPOINT_FOLDER: "weights and the state of training",
}


class NextStepsObserver(NullObserver):
    """Prints the files and the next commands; must follow the observers that write the files."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder, self._log = folder, log

    def run_end(self, summary: RunSummary) -> None:
        """Print the files and commands."""
        # `check` requires the target of the rules; the preset may have a lower one.
        best = max((evaluation.lddt_ca for evaluation in summary.evaluations), default=0.0)
        reached = summary.status == "success" and best >= DEFAULT_TARGET
        text = describe_next_steps(
            self._folder,
            self._log,
            reached=reached,
            has_next_phase=summary.status == PHASE_COMPLETE,
        )
        print(text, flush=True)


def describe_next_steps(
    folder: Path, log: Path, *, reached: bool, has_next_phase: bool = False
) -> str:
    """Return the existing files of a run, and commands for its log and its weights.

    Args:
        folder: output directory of the run.
        log: the MLPerf log of this process.
        reached: whether the run reached the target of the MLPerf rules.
        has_next_phase: whether another phase follows, which another process trains.
    """
    files = {log.name: "the MLPerf log"} | _FILES
    existing = {name: text for name, text in files.items() if (folder / name).exists()}
    width = max(map(len, existing), default=0)
    lines = [f"files of this run in {folder}:"]
    lines += [f"  {name:<{width}}  {text}" for name, text in existing.items()]
    run_dir = shlex.quote(str(folder))
    lines.append("next:")
    # `check` refuses the logs of a continued run, even with --below-target.
    if log.name == FIRST_LOG and not has_next_phase:
        check = "check" if reached else "check --below-target"
        lines.append(f"  python -m benchmark {check} {run_dir}   # does the log comply?")
    shown = "the command of the next phase" if has_next_phase else "outcome and last scores"
    lines.append(f"  python -m benchmark status {run_dir}   # {shown}")
    if (folder / TENSORBOARD_FOLDER).is_dir():
        lines.append(f"  tensorboard --logdir {run_dir}   # metrics over steps in a browser")
    has_checkpoint = any((folder / CHECKPOINT_FOLDER).glob("*"))
    if has_checkpoint:
        lines.append(f"  python -m benchmark export {run_dir} weights.pt   # one file of weights")
        lines.append(
            f"  python -m benchmark predict-validation {run_dir} --data-dir D   # a structure"
        )
        lines.append(
            f"  python -m openfold_opt.predict my.fasta --alignments DIR --weights {run_dir} "
            "--out predictions   # structures"
        )
    if has_checkpoint and not has_next_phase:
        lines.append(
            f"to train these weights further, in another output directory: the same command with "
            f"--init-checkpoint {run_dir} --output-dir NEW_DIR"
        )
    return "\n".join(lines)
