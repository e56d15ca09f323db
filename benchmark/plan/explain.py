"""Where the time of a measured run, or of the steps of a record, went."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.plan.bars import Bar

QUIET_SHARE = 0.1
"""The time of a step without disturbance is this quantile of the steps with as many iterations."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Bars of a mean step and of a whole run."""

    source: str
    num_steps: int
    step: Bar
    optimal: Bar
    run: dict[str, float]
    """Part of the run -> seconds; empty for a record."""
    notes: list[str]


def explain(path: Path) -> Explanation:
    """Explain an output directory of a run, or a record of `perf step`.

    Raises:
        BenchmarkError: It is neither, or has no steps.
    """
    if path.is_dir():
        return _explain_run(path)
    return _explain_record(path)


def _explain_run(folder: Path) -> Explanation:
    steps = _read_lines(folder / "steps.jsonl")
    if not steps:
        raise BenchmarkError(f"{folder}: no steps in steps.jsonl; expected the directory of a run")
    evaluations = _read_lines(folder / "evaluations.jsonl")
    by_iterations: dict[int, list[float]] = {}
    for step in steps:
        work = step["step_time_seconds"] - step["data_wait_seconds"]
        by_iterations.setdefault(step["num_recycling_iterations"], []).append(work)
    quiet = {number: _quantile(times, QUIET_SHARE) for number, times in by_iterations.items()}
    least = statistics.fmean(quiet[step["num_recycling_iterations"]] for step in steps)
    total = statistics.fmean(step["step_time_seconds"] for step in steps)
    loader = statistics.fmean(step["data_wait_seconds"] for step in steps)
    parts = {"compute": least, "loader": loader, "slow ranks": total - loader - least}
    whole = _run_seconds(folder)
    evaluation = sum(each["seconds"] for each in evaluations)
    run = {"steps": total * len(steps), "evaluation": evaluation}
    notes = [
        "compute: what a step takes in the quietest tenth of the steps with as many recycling "
        "iterations, with launches and collectives; slow ranks: what the others take longer"
    ]
    if whole is not None:
        rest = whole - run["steps"] - evaluation
        if rest < 0:
            notes.append("evaluation and training overlapped")
        run["start and rest"] = max(0.0, rest)
    return Explanation(
        source=str(folder),
        num_steps=len(steps),
        step=Bar(label="measured step", seconds=parts),
        optimal=Bar(label="optimal", seconds={"compute": least}),
        run=run,
        notes=notes,
    )


def _run_seconds(folder: Path) -> float | None:
    path = folder / "run.json"
    clock = json.loads(path.read_text(encoding="utf-8")).get("clock") if path.exists() else None
    return clock["monotonic_seconds"] if clock else None


def _explain_record(path: Path) -> Explanation:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        figures = record["figures"]
        if record["measurement"] != "step":
            raise BenchmarkError(
                f"{path} is a record of `perf {record['measurement']}`; expected one of `perf step`"
            )
        times = {int(n): sides["ours"]["seconds"] for n, sides in figures["passes"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{path}: {type(error).__name__} {error}; expected an output directory of a run, or a "
            "record that `perf step --json` wrote"
        ) from error
    least = statistics.fmean(_quantile(seconds, QUIET_SHARE) for seconds in times.values())
    total = statistics.fmean(statistics.fmean(seconds) for seconds in times.values())
    notes, optimal = [], least
    rate, flops = figures.get("matmul_flops_per_second"), figures.get("flops")
    if rate and flops:
        optimal = statistics.fmean(flops[str(number)] / rate for number in times)
        notes.append("optimal: the operations of the step at the measured rate of large products")
    return Explanation(
        source=str(path),
        num_steps=sum(map(len, times.values())),
        step=Bar(label="measured step", seconds={"compute": least, "slow ranks": total - least}),
        optimal=Bar(label="optimal", seconds={"compute": optimal}),
        run={},
        notes=notes,
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines. The last line of a run that died may be incomplete."""
    if not path.exists():
        return []
    values = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values.append(json.loads(line))
        except ValueError:
            break
    return values


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * len(values))]
