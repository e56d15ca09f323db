"""Systems of CPUs, as `plan systems --calibrate` writes them from records of `perf`."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import read_json
from benchmark.perf.tools.pass_counts import PassCounts
from benchmark.perf.tools.perf_record import from_json, to_json
from benchmark.plan.cpu_rates import CallOverhead, CpuRates
from benchmark.plan.system_checks import (
    Range,
    check_line,
    check_number,
    check_object,
    check_sources,
    check_whole,
)
from benchmark.plan.systems import EXPECTED, Link

MEASURE_COMM = (
    "torchrun --nproc-per-node 2 -m benchmark perf comm --preset middle --passes 0 --device cpu "
    "--steps --json comm.json"
)
NUMBERS: Range = (1, 10**6)
"""Of cores and processes."""
_SECONDS: Range = (0.0, 1.0)
_BYTES: Range = (1.0, 1e12)


@dataclass(frozen=True, kw_only=True)
class CpuSystem:
    """A machine without a GPU, whose ranks compute with one thread each."""

    name: str
    processor: str
    num_cores: int
    num_processes: int
    """Processes that computed at the same time when the rates were measured."""
    rates: CpuRates
    collectives: dict[str, Link] = field(default_factory=dict)
    """Kind of collective -> its latency, and bytes that a rank sends in a second; empty if not
    measured."""
    wait_seconds: float = 0.0
    """What a rank waits for the others at each collective, besides the time of the collective."""
    sources: dict[str, str]
    """Field -> where its figures come from."""
    warnings: list[str] = field(default_factory=list)
    """What was wrong with the measurement; shown with every plan."""

    def link(self, kind: str) -> Link:
        """Return latency and rate of a kind of collective.

        Raises:
            BenchmarkError: They were not measured.
        """
        if kind not in self.collectives:
            known = ", ".join(self.collectives) or "none"
            raise BenchmarkError(
                f"{self.name} has no figures of the collective {kind} (it has {known}); measure "
                f"them with `{MEASURE_COMM}`, and pass comm.json to `plan systems --calibrate`"
            )
        return self.collectives[kind]


def sent_seconds(counts: PassCounts, system: CpuSystem) -> float:
    """Return the seconds of all collectives, without waiting for a rank."""
    links = ((each, system.link(each.kind)) for each in counts.collectives)
    return sum(
        each.calls * (link.latency_seconds + each.sent_bytes / link.bytes_per_second)
        for each, link in links
    )


def load_cpu_system(path: str) -> CpuSystem:
    """Read a system of CPUs.

    Raises:
        BenchmarkError: The file cannot be read, or lacks a figure.
    """
    value = read_json(Path(path), expected=EXPECTED)
    try:
        _check_figures(value)
        return from_json(CpuSystem, value)
    except (ValueError, TypeError) as error:
        raise BenchmarkError(
            f"system {path}: {error}; write it with `plan systems --calibrate RECORD... --out FILE`"
        ) from error


def cpu_system_json(system: CpuSystem) -> dict[str, Any]:
    """Return the value for the JSON file of a system."""
    return to_json(system)


def check_cpu_system(system: CpuSystem) -> None:
    """Raise ValueError that names a figure that a file of a system must not have."""
    _check_figures(cpu_system_json(system))


def _check_figures(value: Any) -> None:
    """Raise ValueError that names a figure that is missing or wrong."""
    _check_fields(CpuSystem, value, where="")
    for name in ("name", "processor"):
        check_line(name, value[name])
    for name in ("num_cores", "num_processes"):
        check_whole(name, value[name], NUMBERS)
    check_sources(value["sources"], [each.name for each in dataclasses.fields(CpuSystem)])
    warnings = value.get("warnings", [])
    if not isinstance(warnings, list):
        raise ValueError("warnings is no list")
    for text in warnings:
        check_line("warnings", text)
    rates = value["rates"]
    _check_fields(CpuRates, rates, where="rates")
    check_number("wait_seconds", value.get("wait_seconds", 0.0), _SECONDS)
    _check_overheads(rates["overheads"])
    check_object("rates.operators", rates["operators"])
    for operator, work in {**rates["operators"], "others": rates["others"]}.items():
        check_object(f"rates.{operator}", work)
        for name, number in work.items():
            check_number(f"rates.{operator}.{name}", number, _SECONDS)


def _check_overheads(overheads: Any) -> None:
    if not isinstance(overheads, list) or not overheads:
        raise ValueError("rates.overheads is empty or no list")
    for each in overheads:
        _check_fields(CallOverhead, each, where="rates.overheads")
        check_number("rates.overheads.seconds", each["seconds"], _SECONDS)
        check_number("rates.overheads.bytes_per_call", each["bytes_per_call"], _BYTES)
    sizes = [each["bytes_per_call"] for each in overheads]
    # Interpolation between others would be wrong without an error.
    if any(two <= one for one, two in itertools.pairwise(sizes)):
        raise ValueError(f"rates.overheads: bytes_per_call are {sizes}; expected them to increase")


def _check_fields(kind: Any, value: Any, *, where: str) -> None:
    check_object(where or "the file", value)
    prefix = f"{where}." if where else ""
    for each in dataclasses.fields(kind):
        is_required = each.default is each.default_factory is dataclasses.MISSING
        if is_required and value.get(each.name) is None:
            raise ValueError(f"{prefix}{each.name} is missing")


def name_of(processor: str) -> str:
    """Return a name for a machine with a processor."""
    return re.sub(r"[^a-z0-9]+", "_", processor.lower()).strip("_") or "cpu"
