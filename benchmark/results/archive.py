"""Our own records: measurements of `perf` and runs that were kept, and the table of all of them.

results/measured/*.json     one `perf` record each
results/runs/<name>/        mlperf.log, config.json, command.txt of one run
results/TABLE.md            made from them, never edited
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.results.gather import ResultSet, gather
from benchmark.results.headlines import headline
from benchmark.results.metrics import Metrics, compute_metrics
from benchmark.results.place import describe_place
from benchmark.results.run_log import LogError, RunLog, read_run_log
from benchmark.results.tables import (
    SPEED_COLUMNS,
    TIME_COLUMNS,
    UNKNOWN,
    markdown_table,
    number,
    table,
)

RECORD_KEYS = ("measurement", "date", "command", "machine", "versions", "figures")
MACHINE_KEYS = ("processor", "cpu_count", "memory_bytes", "accelerator_count", "accelerator")
RUN_FILES = ("mlperf.log", "config.json", "command.txt")
CONFIG_KEYS = ("preset", "seed", "data_checksum", "machine", "versions")
TABLE_FILE = "TABLE.md"
MIN_RUNS_OF_A_SET = 3


def format_table(results: Path) -> str:
    """TABLE.md of a results folder. BenchmarkError for a record that is broken."""
    parts = [
        "# Measured results",
        "Made by `python -m benchmark results` from what lies in `measured` and `runs`; do not edit. [README.md](README.md) says how to add "
        "a record, [docs/results.md](../docs/results.md) what the columns mean. A run's time is run_stop - run_start.",
        "## Runs",
        _runs(results / "runs"),
        "## Measurements",
        _measurements(results / "measured"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs(folder: Path) -> str:
    folders = sorted(path for path in folder.glob("*") if path.is_dir())
    if not folders:
        return "None yet."
    rows, commands = [], []
    for each in folders:
        run, config, command = _read_run(each)
        metrics = compute_metrics(
            ResultSet(place=describe_place(each), runs=(run,), num_rejected=0)
        )
        rows.append([f"[{each.name}](runs/{each.name})", *_run_cells(run, config, metrics)])
        commands.append(
            f"- {each.name}: `{command}`, on data with checksum {config['data_checksum'][:12]}"
        )
    header = [
        "run",
        "date",
        "preset",
        "division",
        "machine",
        "ranks",
        "DAP",
        "batch",
        "outcome",
        "minutes",
        "samples",
        "s/step",
        "commit",
    ]
    parts = [markdown_table(rows, header=header), "Repeated by:", "\n".join(commands)]
    sets = [compute_metrics(each) for each in gather([folder]).sets]
    several = [each for each in sets if each.runs >= MIN_RUNS_OF_A_SET]
    if several:
        parts += [
            "Runs of one kind together:",
            table(several, TIME_COLUMNS),
            table(several, SPEED_COLUMNS),
        ]
    return "\n\n".join(parts)


def _read_run(folder: Path) -> tuple[RunLog, dict[str, Any], str]:
    """Its log, its configuration, and the command that repeats it."""
    missing = [name for name in RUN_FILES if not (folder / name).is_file()]
    if missing:
        raise BenchmarkError(
            f"{folder} lacks {', '.join(missing)}; expected {', '.join(RUN_FILES)} of a run"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        lacking = missing_keys(config, CONFIG_KEYS)
        if lacking:
            raise ValueError(f"config.json lacks {', '.join(lacking)}")
        return (
            read_run_log(folder / "mlperf.log"),
            config,
            (folder / "command.txt").read_text(encoding="utf-8").strip(),
        )
    except (LogError, ValueError) as error:
        raise BenchmarkError(f"{folder} holds no whole run: {error}") from error


def missing_keys(content: Any, keys: Sequence[str]) -> list[str]:
    """What a run's config.json or a record lacks of these keys and of those of machine and versions; all where it is no table."""
    wanted = [*keys, *(f"machine.{key}" for key in MACHINE_KEYS), "versions.commit"]
    return [path for path in wanted if _lacks(content, path.split("."))]


def _lacks(content: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            return True
        content = content[key]
    return False


def _run_cells(run: RunLog, config: dict[str, Any], metrics: Metrics) -> list[str]:
    return [
        datetime.datetime.fromtimestamp(run.run_start_ms / 1e3, datetime.UTC).date().isoformat(),
        f"{config['preset']}, seed {config['seed']}",
        run.division,
        _machine(config["machine"]),
        str(run.num_ranks),
        UNKNOWN if metrics.dap_size is None else str(metrics.dap_size),
        str(run.batch),
        run.status,
        number(run.minutes),
        number(run.samples),
        number(metrics.seconds_per_step),
        _commit(config["versions"]),
    ]


def _measurements(folder: Path) -> str:
    files = sorted(folder.glob("*.json"))
    if not files:
        return "None yet."
    rows, commands = [], []
    for path in files:
        record = _read_record(path)
        rows.append(
            [
                f"[{record['measurement']}](measured/{path.name})",
                str(record["date"])[:10],
                headline(record["measurement"], record["figures"]),
                _machine(record["machine"]),
                _commit(record["versions"]),
            ]
        )
        commands.append(f"- {path.name}: `{record['command']}`")
    header = ["measurement", "date", "in short", "machine", "commit"]
    return "\n\n".join([markdown_table(rows, header=header), "Repeated by:", "\n".join(commands)])


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchmarkError(
            f"{path} is not JSON: {error}; expected a record of `perf --json`"
        ) from error
    missing = missing_keys(record, RECORD_KEYS)
    if missing:
        raise BenchmarkError(
            f"{path} lacks {', '.join(missing)}; expected a record of `perf --json`"
        )
    return record


def _machine(machine: dict[str, Any]) -> str:
    """Without the host's name, which is nobody's business."""
    if machine["accelerator_count"]:
        return f"{machine['accelerator_count']} x {machine['accelerator']}"
    return f"{machine['processor']}, {machine['cpu_count']} CPUs, {machine['memory_bytes'] / 2**30:.0f} GiB"


def _commit(versions: dict[str, str]) -> str:
    commit, _, dirty = versions["commit"].partition("-")
    return commit[:10] + (f" ({dirty})" if dirty else "")
