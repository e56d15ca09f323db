"""Kernel times for `perf kernels --against`, from an earlier record or from another checkout."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.json_file import not_expected, read_json
from benchmark.perf.tools.kernel_times import CaseTimes, KernelTimes
from benchmark.perf.tools.perf_record import from_json

SIDE = "against"
"""Name of these kernels in records and tables."""
Case = tuple[str, str]
"""Operation and its location in the model."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings that must be the same in two measurements that are compared."""

    preset: str
    precision: str
    device: str
    """Such as "cuda:0"; only its type must be the same."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Kernel times of another record."""

    source: str
    """Path of the record and its date, or path of the checkout."""
    seconds: dict[Case, KernelTimes]


def check(path: Path, setting: Setting) -> Measured | None:
    """Check --against: return the times of a record, or None if the path is a checkout.

    Raises:
        BenchmarkError: The path is neither.
    """
    if path.is_file():
        return read_record(path, setting)
    if not (path / "benchmark" / "perf" / "kernels.py").is_file():
        raise BenchmarkError(
            f"--against {path} is neither a record of `perf kernels --json` nor a checkout of this "
            "project (it has no benchmark/perf/kernels.py)"
        )
    return None


def read_record(path: Path, setting: Setting) -> Measured:
    """Read the times of the optimized kernels ("ours") from a record.

    Args:
        path: Record written by `perf kernels --json`.
        setting: Setting of this measurement.

    Raises:
        BenchmarkError: The file is not such a record, or its settings differ.
    """
    expected_file = "a record of `perf kernels --json`"
    record = read_json(path, expected=expected_file)
    try:
        recorded = record["figures"]
        cases = {
            (case["operation"], case["where"]): from_json(KernelTimes, case["seconds"]["ours"])
            for case in recorded["cases"]
            if "ours" in case["seconds"]
        }
        theirs = Setting(**{name: recorded[name] for name in ("preset", "precision", "device")})
        source = f"{path} of {record['date']}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_expected(path, error, expected=expected_file) from error
    for name, found, expected in (
        ("preset", theirs.preset, setting.preset),
        ("precision", theirs.precision, setting.precision),
        ("device", _device_type(theirs.device), _device_type(setting.device)),
    ):
        if found != expected:
            raise BenchmarkError(
                f"--against {path} was measured with {name} {found}, this measurement has "
                f"{expected}; repeat one of them with the same settings"
            )
    return Measured(source=source, seconds=cases)


def measure_checkout(checkout: Path, options: Sequence[str], setting: Setting) -> Measured:
    """Run `perf kernels` in another checkout and return the times of its kernels.

    Args:
        checkout: Root of the checkout.
        options: Options of `perf kernels`.
        setting: Setting of this measurement.

    Raises:
        BenchmarkError: The command wrote no record. Its messages are on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="perf-kernels-against-") as folder:
        record = Path(folder, "record.json")
        # `python -m` imports from the working directory first, so this runs the checkout's code.
        command = [sys.executable, "-m", "benchmark", "perf", "kernels", *options]
        process = subprocess.run(
            [*command, "--json", str(record)], cwd=checkout, stdout=subprocess.DEVNULL
        )
        if not record.is_file():
            raise BenchmarkError(
                f"--against {checkout}: its `perf kernels` ended with exit code "
                f"{process.returncode} and wrote no record; see its messages above"
            )
        measured = read_record(record, setting)
    return Measured(source=str(checkout), seconds=measured.seconds)


def add_times(measured: Measured, cases: Sequence[CaseTimes]) -> None:
    """Add the times to the cases under the name "against".

    Raises:
        BenchmarkError: There is no time for any of the cases.
    """
    num_matching = 0
    for case in cases:
        if "ours" not in case.seconds:
            continue
        seconds = measured.seconds.get((case.operation, case.where))
        if seconds is None:
            case.unavailable[SIDE] = f"{measured.source} has no time for this case"
            continue
        num_matching += 1
        case.seconds[SIDE] = case.seconds[SIDE] + seconds if SIDE in case.seconds else seconds
    if not num_matching:
        raise BenchmarkError(f"--against: {measured.source} has none of the cases measured here")


def _device_type(device: str) -> str:
    return device.partition(":")[0]
