"""Find logs in files and folders, and group them into sets of runs.

A folder with result_*.txt is one set, whose logs must have the same configuration. All other logs
(named files, and every mlperf.log below a folder) are grouped by configuration. Logs of resumed
runs are linked and skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.mlperf.find_logs import CONTINUED_PATTERN, RESULT_PATTERN, find_logs
from benchmark.results.continued import separate_resumed_runs
from benchmark.results.logged_run import ForeignLogError, LogError, LoggedRun, read_logged_run
from benchmark.results.origin import Origin, describe_origin
from benchmark.run.output_directory import FIRST_LOG


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A log, or a folder of logs, that is not a result, and the reason."""

    path: Path
    reason: str
    is_foreign: bool = False
    """Whether the log is of another benchmark."""


@dataclass(frozen=True, kw_only=True)
class ResultSet:
    """One or more runs with the same configuration on one system."""

    origin: Origin
    runs: tuple[LoggedRun, ...]
    num_rejected: int
    """Logs of the same folder that are not results."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All sets and all skipped logs and folders."""

    sets: tuple[ResultSet, ...]
    rejections: tuple[Rejection, ...]
    foreign_folders: tuple[Path, ...] = ()
    """Folders that have only results of other benchmarks, as in a complete submission."""


def gather(paths: Sequence[Path], *, is_throughput: bool = False) -> Gathered:
    """Read all logs in files and folders.

    Raises:
        BenchmarkError: A path does not exist, or a folder has no logs.
    """
    folders, single_logs = _find_sets(paths)
    sets: list[ResultSet] = []
    rejections: list[Rejection] = []
    foreign_folders: list[Path] = []
    for folder in folders:
        runs, rejected = _read_all(find_logs(folder, RESULT_PATTERN))
        if not runs and all(rejection.is_foreign for rejection in rejected):
            foreign_folders.append(folder)
            continue
        rejections += rejected
        if len(_by_configuration(runs)) > 1:
            rejections.append(Rejection(path=folder, reason=_disagreement(runs)))
        elif runs:
            origin = describe_origin(folder)
            sets.append(ResultSet(origin=origin, runs=tuple(runs), num_rejected=len(rejected)))
    runs, rejected = _read_all(single_logs)
    rejections += rejected
    by_origin: dict[Origin, list[LoggedRun]] = {}
    for run in runs:
        # Values from config.json, such as preset and DAP size, must be the same too.
        by_origin.setdefault(describe_origin(run.path.parent), []).append(run)
    for origin, of_origin in by_origin.items():
        sets += [
            ResultSet(origin=origin, runs=tuple(members), num_rejected=0)
            for members in _by_configuration(of_origin)
        ]
    if is_throughput:
        sets = [replace(each, origin=replace(each.origin, is_throughput=True)) for each in sets]
    return Gathered(
        sets=tuple(sets), rejections=tuple(rejections), foreign_folders=tuple(foreign_folders)
    )


def _find_sets(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the folders that have result files, and the other logs, in the order of `paths`.

    No log is returned twice, even under different names.

    Raises:
        BenchmarkError: A path does not exist, or a folder has no logs.
    """
    folders: dict[Path, Path] = {}
    single_logs: dict[Path, Path] = {}
    for path in paths:
        results = find_logs(path, RESULT_PATTERN, recursive=True) if path.is_dir() else []
        logs = find_logs(path, FIRST_LOG, CONTINUED_PATTERN, recursive=True)
        if not results and not logs:
            raise BenchmarkError(
                f"{path} has no logs; expected {RESULT_PATTERN} or {FIRST_LOG} in it or below it"
            )
        for file in results:
            folders.setdefault(file.parent.resolve(), file.parent)
        for log in logs:
            single_logs.setdefault(log.resolve(), log)
    of_folders = {file.resolve() for each in folders for file in find_logs(each, RESULT_PATTERN)}
    others = [path for file, path in single_logs.items() if file not in of_folders]
    return list(folders.values()), others


def _read_all(paths: Iterable[Path]) -> tuple[list[LoggedRun], list[Rejection]]:
    complete, reasons = separate_resumed_runs(paths)
    runs = []
    rejections = [Rejection(path=path, reason=reason) for path, reason in reasons.items()]
    for path in complete:
        try:
            runs.append(read_logged_run(path))
        except LogError as error:
            rejections.append(
                Rejection(
                    path=path, reason=str(error), is_foreign=isinstance(error, ForeignLogError)
                )
            )
    return runs, rejections


def _configuration(run: LoggedRun) -> dict[str, object]:
    """Return the values that are the same for all runs of a set."""
    return {
        "submission_org": run.organization,
        "submission_platform": run.platform,
        "submission_division": run.division,
        "number_of_nodes": run.num_nodes,
        "accelerators_per_node": run.accelerators_per_node,
        "number_of_ranks": run.num_ranks,
        "global_batch_size": run.batch,
        "gradient_accumulation_steps": run.accumulation,
        "precision": run.precision,
        "target_avg_lddt_ca_value": run.target,
        "size of model and sample": run.has_closed_sample,
    }


def _by_configuration(runs: Sequence[LoggedRun]) -> list[list[LoggedRun]]:
    groups: dict[tuple, list[LoggedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(_configuration(run).values()), []).append(run)
    return list(groups.values())


def _disagreement(runs: Sequence[LoggedRun]) -> str:
    for name in _configuration(runs[0]):
        values = sorted({str(_configuration(run)[name]) for run in runs})
        if len(values) > 1:
            return (
                f"its logs have different configurations: {name} is {' and '.join(values)}; "
                f"expected the same in every {RESULT_PATTERN}"
            )
    raise AssertionError("logs of different configurations have no different value")
