"""The runs of a submission: their logs, configurations and power readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import read_json
from benchmark.mlperf.find_logs import RESULT_PATTERN, find_logs
from benchmark.mlperf.run_log import RunLog
from benchmark.run.output_directory import FIRST_LOG, POWER_FOLDER, was_resumed

RECORD_FILE = "config.json"


@dataclass(frozen=True, kw_only=True)
class SubmittedRun:
    """One run: its log file and the other files of its output directory."""

    path: Path
    """The log."""
    name: str
    """Name in the package, result_<i>; the log there has the suffix .txt."""

    @cached_property
    def log(self) -> RunLog:
        """The content of the log."""
        return RunLog.read(self.path)

    @cached_property
    def record(self) -> Mapping[str, Any] | None:
        """config.json of the run (preset, configuration, versions, machine), or None."""
        file = self.path.parent / RECORD_FILE
        if self.path.name != FIRST_LOG or not file.is_file():
            return None
        record = read_json(file, expected="the file that a run writes")
        return record if isinstance(record, dict) else None

    @property
    def recorded_commit(self) -> str:
        """The recorded commit of the code: a hash, or a text that says why it is unknown."""
        return str(((self.record or {}).get("versions") or {}).get("commit", "not recorded"))

    @property
    def commit(self) -> str | None:
        """Commit of the code, with "-dirty" if files were not committed; None if unknown."""
        commit = self.recorded_commit
        return commit if commit and " " not in commit else None

    @property
    def was_resumed(self) -> bool:
        """Whether another process continued this run in a separate log."""
        return was_resumed(self.path)

    @property
    def power_files(self) -> list[Path]:
        """Readings in power/ next to mlperf.log, or in power/result_<i>/ next to result_<i>.txt."""
        folder = self.path.parent / POWER_FOLDER
        if self.path.name != FIRST_LOG:
            folder = folder / self.path.stem
        return sorted(file for file in folder.glob("*.txt") if file.is_file())


def find_runs(paths: Sequence[Path]) -> list[SubmittedRun]:
    """Return the runs whose logs are in `paths` (logs or directories), in the order given.

    The logs of a directory are its mlperf.log, or else its result_<i>.txt, or else every mlperf.log
    below it in natural order.

    Raises:
        BenchmarkError: A path does not exist, has no logs, or is given twice.
    """
    found: list[Path] = []
    for path in paths:
        logs = (
            find_logs(path, FIRST_LOG)
            or find_logs(path, RESULT_PATTERN)
            or find_logs(path, FIRST_LOG, recursive=True)
        )
        if not logs:
            raise BenchmarkError(
                f"{path} has no logs; expected {FIRST_LOG} in it or below it, or {RESULT_PATTERN}"
            )
        found += logs
    resolved = [path.resolve() for path in found]
    for path in resolved:
        if resolved.count(path) > 1:
            raise BenchmarkError(f"{path} is given more than once; give every run once")
    return [SubmittedRun(path=path, name=f"result_{index}") for index, path in enumerate(found)]
