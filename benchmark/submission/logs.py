"""The runs of a submission: their logs, what was written beside them, and power readings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.log_events import read_events
from benchmark.output_directory import FIRST_LOG, POWER_FOLDER, was_resumed
from benchmark.result_files import RESULT_PATTERN, by_number

RECORD_FILE = "config.json"


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """One run: the log file, and what lies beside it in the run's output directory."""

    path: Path
    name: str
    """What it is called in the package, result_<i>; the log there has the suffix .txt."""

    @cached_property
    def values(self) -> dict[str, Any]:
        """Key -> value of the log's events; of a key that comes more than once, the first value that is not null."""
        values: dict[str, Any] = {}
        for event in read_events(self.path)[0]:
            if event["value"] is not None:
                values.setdefault(event["key"], event["value"])
        return values

    @cached_property
    def times(self) -> dict[str, Any]:
        """Key -> time_ms of its first event."""
        times: dict[str, Any] = {}
        for event in read_events(self.path)[0]:
            times.setdefault(event["key"], event["time_ms"])
        return times

    @cached_property
    def record(self) -> dict[str, Any] | None:
        """config.json of the run (preset, configuration, versions, machine); None for a log without one."""
        file = self.path.parent / RECORD_FILE
        if self.path.name != FIRST_LOG or not file.is_file():
            return None
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BenchmarkError(
                f"{file} is not JSON ({error}); expected the record that a run writes"
            ) from error
        return record if isinstance(record, dict) else None

    @property
    def recorded_commit(self) -> str:
        """What the run recorded as its commit: a hash, or a text that says why there is none."""
        return str(((self.record or {}).get("versions") or {}).get("commit", "not recorded"))

    @property
    def commit(self) -> str | None:
        """Commit of the code, with "-dirty" if files were not committed; None if unknown."""
        commit = self.recorded_commit
        return commit if commit and " " not in commit else None

    @property
    def was_resumed(self) -> bool:
        """True if another process went on with this run, into a log of its own."""
        return was_resumed(self.path)

    @property
    def power_files(self) -> list[Path]:
        """Readings in power/ beside mlperf.log, or in power/result_<i>/ beside result_<i>.txt."""
        folder = self.path.parent / POWER_FOLDER
        if self.path.name != FIRST_LOG:
            folder = folder / self.path.stem
        return sorted(file for file in folder.glob("*.txt") if file.is_file())


def find_logs(paths: list[Path]) -> list[RunLog]:
    """The logs that files and directories stand for, in the order given; BenchmarkError if there are none.

    A directory stands for its mlperf.log; else for its result_<i>.txt; else for every mlperf.log below it,
    by name, numbers as numbers.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BenchmarkError(
                f"{path} does not exist; expected the log of a run, or a directory with logs"
            )
        found += [path] if path.is_file() else _logs_in(path)
    resolved = [path.resolve() for path in found]
    for path in resolved:
        if resolved.count(path) > 1:
            raise BenchmarkError(f"{path} is named more than once; name every run once")
    return [RunLog(path=path, name=f"result_{index}") for index, path in enumerate(found)]


def _logs_in(folder: Path) -> list[Path]:
    if (folder / FIRST_LOG).is_file():
        return [folder / FIRST_LOG]
    found = list(folder.glob(RESULT_PATTERN)) or list(folder.rglob(FIRST_LOG))
    if not found:
        raise BenchmarkError(
            f"{folder} has no logs; expected {FIRST_LOG} in it or below it, or {RESULT_PATTERN}"
        )
    return sorted(found, key=by_number)
