"""The kernels that `perf kernels --against` compares ours with: an earlier record, or those of another checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError

SIDE = "against"
"""Name of the side in records and tables."""
Case = tuple[str, str]
"""Operation and place."""
Seconds = dict[str, list[float]]
"""Times by "forward" and "both"."""

_SETTINGS = ("preset", "precision")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Read the kernel times of another record."""

    source: str
    """Where the record comes from, with the machine's processor or GPU and the date."""
    seconds: dict[Case, Seconds]


def check(path: Path, metrics: dict[str, Any]) -> Measured | None:
    """Return a record's times, or None for a checkout; BenchmarkError if the path is neither."""
    if path.is_file():
        return read_record(path, metrics)
    if not (path / "benchmark" / "perf" / "kernels.py").is_file():
        raise BenchmarkError(
            f"--against {path} is neither a record of `perf kernels --json` nor a checkout of this "
            "project (it has no benchmark/perf/kernels.py)"
        )
    return None


def read_record(path: Path, metrics: dict[str, Any]) -> Measured:
    """Read the times of "ours" from a record.

    Args:
        path: written by `perf kernels --json`.
        figures: of this measurement; preset, precision and kind of device must be the same.

    Raises:
        BenchmarkError: the file is no such record, or one of other settings.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = record["figures"]
        cases = {
            (case["operation"], case["where"]): case["seconds"]["ours"]
            for case in found["cases"]
            if "ours" in case["seconds"]
        }
        settings = {name: found[name] for name in _SETTINGS} | {"device": _kind(found["device"])}
        source = f"{path} of {record['date']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"--against {path} is no record of `perf kernels --json`: {type(error).__name__} {error}"
        ) from error
    expected = {name: metrics[name] for name in _SETTINGS} | {"device": _kind(metrics["device"])}
    for name, value in expected.items():
        if settings[name] != value:
            raise BenchmarkError(
                f"--against {path} was measured with {name} {settings[name]}, this measurement has "
                f"{value}; repeat one of them with the settings of the other"
            )
    return Measured(source=source, seconds=cases)


def measure_checkout(checkout: Path, options: Sequence[str], metrics: dict[str, Any]) -> Measured:
    """Run `perf kernels` of another checkout, with its code, and return the times of its kernels.

    Args:
        checkout: its top folder.
        options: of `perf kernels`.
        figures: of this measurement.

    Raises:
        BenchmarkError: the command left no record. Its messages are on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="perf-kernels-against-") as folder:
        record = Path(folder, "record.json")
        # the working directory comes first on the path of `python -m`
        command = [sys.executable, "-m", "benchmark", "perf", "kernels", *options]
        ended = subprocess.run(
            [*command, "--json", str(record)], cwd=checkout, stdout=subprocess.DEVNULL
        )
        if not record.is_file():
            raise BenchmarkError(
                f"--against {checkout}: its `perf kernels` ended with exit code {ended.returncode} and "
                "left no record; its messages are above"
            )
        found = read_record(record, metrics)
    return Measured(source=str(checkout), seconds=found.seconds)


def add_times(measured: Measured, cases: list[dict[str, Any]]) -> None:
    """Add the times to the cases as side "against"; BenchmarkError if none of them is there."""
    num_found = 0
    for case in cases:
        if "ours" not in case["seconds"]:
            continue
        seconds = measured.seconds.get((case["operation"], case["where"]))
        if seconds is None:
            case["unavailable"][SIDE] = f"{measured.source} has no time of it"
            continue
        num_found += 1
        extend(case["seconds"].setdefault(SIDE, {"forward": [], "both": []}), seconds)
    if not num_found:
        raise BenchmarkError(f"--against: {measured.source} has none of the cases measured here")


def extend(times: Seconds, more: Seconds) -> None:
    """Append the times of another round."""
    for way, values in more.items():
        times[way] = [*times[way], *values]


def _kind(device: str) -> str:
    return device.partition(":")[0]
