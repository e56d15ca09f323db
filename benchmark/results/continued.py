"""Find the logs of resumed runs, which are not results, and link their parts.

A resumed run writes a second log, which has the key CONTINUED_KEY. Parts belong together if they
are in the same output directory, or in the same folder and have the same seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmark.mlperf.find_logs import CONTINUED_PATTERN, find_logs
from benchmark.mlperf.log_order import SUCCESS
from benchmark.mlperf.run_log import CONTINUED_KEY, Event, RunLog
from benchmark.run.output_directory import FIRST_LOG

PREEMPTED_ERRORS = ("PreemptedError", "Terminated")
"""Errors in run_stop of a run that a signal stopped."""


@dataclass(frozen=True, kw_only=True)
class RunPart:
    """The part of a run that one process logged."""

    path: Path
    seed: int | None
    number: int
    """0 for the first part, else the number of the continuation."""
    resumed_from_step: int | None
    status: str | None
    """Status in run_stop, or None without run_stop."""
    error: str | None
    """Type of the error that ended the process, if the log names one."""
    samples: int | None
    """Samples seen at the end of the last training interval."""

    @property
    def is_preempted(self) -> bool:
        """Whether a signal stopped it, so that the same command continues it."""
        return self.error in PREEMPTED_ERRORS

    def describe(self) -> str:
        """Return the name of the log, and how this part started and ended."""
        step = self.resumed_from_step
        start = "" if step is None else f"resumed from step {step}, "
        end = self.status or "no run_stop"
        if self.is_preempted:
            end = "preempted"
        elif self.error is not None:
            end = f"{self.status} by {self.error}"
        after = "" if self.samples is None else f" after {self.samples:,} samples"
        return f"{self.path.name} ({start}{end}{after})"


def separate_resumed_runs(paths: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the logs that may be complete runs; and for the other runs, first log -> reason.

    The reason says why the run is not a result. For a first log, the continued logs next to it are
    read, too.
    """
    groups: dict[Hashable, list[RunPart]] = defaultdict(list)
    paths = _with_neighbors(paths)
    for path in paths:
        part = read_part(path)
        groups[_run_of(part)].append(part)
    complete: set[Path] = set()
    reasons: dict[Path, str] = {}
    for parts in groups.values():
        if any(part.number > 0 for part in parts):
            # A run that reached its target was not resumed; it has the same seed by chance.
            linked = [part for part in parts if part.number > 0 or part.status != SUCCESS]
            complete |= {part.path for part in parts if part not in linked}
            linked.sort(key=lambda part: part.number)
            reasons[linked[0].path] = _describe_run(linked)
            continue
        for part in parts:
            if part.is_preempted:
                reasons[part.path] = (
                    f"{part.describe()} was not continued yet, so it is not a complete run; "
                    "run the same command again to continue it"
                )
            else:
                complete.add(part.path)
    return [path for path in paths if path in complete], reasons


def read_part(path: Path) -> RunPart:
    """Read the part of a run from its log; damaged lines are skipped."""
    try:
        log = RunLog.read(path)
    except OSError:
        # read_logged_run reports the error.
        log = RunLog(path=path, events=())
    resumption, stop = log.last(CONTINUED_KEY), log.last("run_stop")
    seed, number = _value(log.last("seed")), _value(resumption)
    samples = _detail(log.last("epoch_stop"), "epoch_num")
    is_continued = resumption is not None or fnmatch(path.name, CONTINUED_PATTERN)
    return RunPart(
        path=path,
        seed=seed if isinstance(seed, int) else None,
        number=number if isinstance(number, int) else int(is_continued),
        resumed_from_step=_detail(resumption, "resumed_from_step"),
        status=_detail(stop, "status"),
        error=_detail(stop, "error"),
        samples=samples if isinstance(samples, int) else None,
    )


def _value(event: Event | None) -> Any:
    return None if event is None else event.value


def _detail(event: Event | None, name: str) -> Any:
    return None if event is None else event.detail(name)


def _with_neighbors(paths: Iterable[Path]) -> list[Path]:
    """Add the continued logs in the folder of every first log. No log is returned twice."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
        if path.name == FIRST_LOG:
            for other in find_logs(path.parent, CONTINUED_PATTERN):
                found.setdefault(other.resolve(), other)
    return list(found.values())


def _run_of(part: RunPart) -> Hashable:
    """Return a key that is equal for all parts of a run."""
    folder, name = part.path.parent.resolve(), part.path.name
    if name == FIRST_LOG or fnmatch(name, CONTINUED_PATTERN):
        return folder
    return (folder, part.seed) if part.seed is not None else part.path


def _describe_run(parts: Sequence[RunPart]) -> str:
    first = "" if parts[0].number == 0 else "its first log is missing, "
    listed = ", ".join(part.describe() for part in parts)
    noun = "log" if len(parts) == 1 else "logs"
    return f"a resumed run is not a result: {first}one run in {len(parts)} {noun}: {listed}"
