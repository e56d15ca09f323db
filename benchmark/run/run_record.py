"""Record the state of a run, and the resolved configuration next to every log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.code_revision import DIRTY_MARK, code_digest, uncommitted_files
from benchmark.machine import CHECKOUT, describe_machine, describe_versions
from benchmark.replace_file import replace_text
from benchmark.run.failure import describe_failure
from benchmark.run.output_directory import OutputDirectory
from benchmark.run.phase_record import PhaseRecord
from benchmark.run.run_clock import RunClock
from openfold_opt.train.config import RunConfig, config_as_dict
from openfold_opt.train.observer import NullObserver, PhaseReport, RunInfo, RunSummary, StepReport
from openfold_opt.train.phase_goal import PHASE_COMPLETE
from openfold_opt.train.preemption import PreemptedError

MAX_NAMED = 5
"""Number of uncommitted files that are named on the console."""


@dataclass(frozen=True, kw_only=True)
class CodeRecord:
    """The code of a run."""

    sha256: str
    """Digest of the code files."""
    uncommitted: Sequence[str]
    """Names of the files that differ from the commit."""


class RunRecord(NullObserver):
    """Writes config.json (config_continued_<n>.json if resumed) and the state of the directory.

    The first failure is recorded, with the last step that was reported.

    Args:
        directory: the output directory.
        preset: name or path of the preset.
        division: "closed" or "open".
        clock: the clock that the MLPerf log starts and stops. run.json gets its wall-clock and
            monotonic durations; a warning is printed if they disagree.
        settings: FIELD=VALUE of `--set`.
    """

    def __init__(
        self,
        directory: OutputDirectory,
        *,
        preset: str,
        division: str,
        clock: RunClock,
        settings: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._preset = preset
        self._settings = list(settings)
        self._division = division
        self._clock = clock
        self._step: int | None = None
        self._has_failed = False
        self._phases: list[object] = []
        """The phases of the run as the preset declares them."""
        self._first_content: Mapping[str, object] | None = None
        """The record that init_stop wrote, until the first phase of this process starts."""

    def init_start(self, config: RunConfig, *, seed: int) -> None:
        """Remember the phases of the run."""
        self._phases = [config_as_dict(phase) for phase in config.phases]

    def init_stop(self, info: RunInfo) -> None:
        """Write everything that determines the run, with the machine and the versions."""
        self._step = info.resumed_from_step
        versions = describe_versions()
        code = _describe_code(versions["commit"])
        content = self._describe_run(info) | {
            "code": asdict(code),
            "versions": versions,
            "machine": describe_machine(),
        }
        self._write_config(self._config_path(), content)
        self._first_content = content
        _warn_of_commit(versions["commit"], code.uncommitted)

    def _config_path(self) -> Path:
        """Return the path of the record next to the log of this process."""
        path = self._directory.log_path
        return path.with_name(path.name.replace("mlperf", "config", 1)).with_suffix(".json")

    def _write_config(self, path: Path, content: Mapping[str, object]) -> None:
        replace_text(path, json.dumps(content, indent=1) + "\n")

    def _describe_run(self, info: RunInfo) -> dict[str, object]:
        config = config_as_dict(info.config)
        return {
            "preset": self._preset,
            "settings": self._settings,
            "division": self._division,
            "seed": info.seed,
            "continued": self._directory.continued,
            "resumed_from_step": info.resumed_from_step,
            "device": info.device,
            "number_of_ranks": info.number_of_ranks,
            "number_of_nodes": info.number_of_nodes,
            "global_batch_size": info.global_batch_size,
            "data_checksum": info.data_checksum,
            "init_checkpoint_sha256": info.init_checkpoint_sha256,
            "config": config | {"recompute": dict(info.recomputed_blocks), "phases": self._phases},
            "phase": None,
        }

    def phase_start(self, report: PhaseReport) -> None:
        """Record the phase, and the configuration of a later phase of this process."""
        self._directory.mark_phase(report.name)
        phase = PhaseRecord(
            name=report.name,
            number=report.number,
            count=report.count,
            steps_before=report.steps_before,
            last_step=report.last_step,
        )
        path = self._config_path()
        content, self._first_content = self._first_content, None
        if content is None:
            content = self._describe_run(report.info)
            path = path.with_name(f"{path.stem}_phase_{report.number}.json")
        self._write_config(path, {**content, "phase": asdict(phase)})

    def phase_stop(self, report: PhaseReport) -> None:
        """Record that the phase has ended."""
        self._directory.mark_phase_complete(report.name)

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None:
        """Count the resumption, if it is one: the run can no longer be refused."""
        if self._directory.continued:
            self._directory.mark_running()

    def checkpoint_written(self, *, step: int) -> None:
        """Record that the run can be resumed."""
        self._directory.mark_running()

    def step(self, report: StepReport) -> None:
        """Remember the number of the last step."""
        self._step = report.step

    def run_failed(self, error: BaseException) -> None:
        """Record in run.json why the run ended. Only the first error is recorded."""
        if self._has_failed:
            return
        self._has_failed = True
        if isinstance(error, PreemptedError):
            self._directory.mark_preempted()
        else:
            self._directory.mark_failed(describe_failure(error, step=self._step))

    def run_end(self, summary: RunSummary) -> None:
        """Record the outcome. The directory of a finished run accepts no further run."""
        if summary.status == PHASE_COMPLETE:
            self._directory.mark_stopped_after_phase()
            return
        self._directory.mark_finished(outcome=summary.outcome, clock=self._clock.durations())

    def run_stop(self, *, status: str, samples: int) -> None:
        """Print a warning if the clocks disagree."""
        disagreement = self._clock.disagreement()
        if disagreement is not None:
            print(f"WARNING: {disagreement}", flush=True)


def _describe_code(commit: str) -> CodeRecord:
    """Return the digest of the code files, and the uncommitted files."""
    # An image has no git history to compare its files with.
    can_list = commit.endswith(DIRTY_MARK) and (CHECKOUT / ".git").exists()
    try:
        uncommitted = uncommitted_files(CHECKOUT) if can_list else []
    except (OSError, subprocess.SubprocessError):
        # The commit is already marked as dirty. Missing names are no reason to stop a run.
        uncommitted = []
    return CodeRecord(sha256=code_digest(CHECKOUT), uncommitted=uncommitted)


def _warn_of_commit(commit: str, uncommitted: Sequence[str]) -> None:
    """Print before a long run that `submit` will refuse its code."""
    if " " in commit:  # Not a commit, but a text that says why it is unknown.
        found = f"commit {commit}"
    elif commit.endswith(DIRTY_MARK):
        more = [] if len(uncommitted) <= MAX_NAMED else ["..."]
        named = ", ".join([*uncommitted[:MAX_NAMED], *more])
        found = f"commit {commit}" + (f", not committed: {named}" if named else "")
    else:
        return
    print(f"code: {found}; `submit` refuses this run", flush=True)
