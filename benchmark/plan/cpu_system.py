"""Systems of CPUs, as `plan systems --calibrate` writes them from records of `perf`."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.perf_record import from_json, to_json
from benchmark.plan.cpu_rates import CpuRates
from benchmark.plan.systems import Link


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
    sources: dict[str, str]
    """Field -> where its figures come from."""

    def link(self, kind: str) -> Link:
        """Return latency and rate of a kind of collective.

        Raises:
            BenchmarkError: They were not measured.
        """
        if kind not in self.collectives:
            known = ", ".join(self.collectives) or "none"
            raise BenchmarkError(
                f"{self.name} has no figures of the collective {kind} (it has {known}); measure "
                "them with `torchrun --nproc-per-node 2 -m benchmark perf comm --preset demo_dap2 "
                "--device cpu --json comm.json`, and pass comm.json to `plan systems --calibrate`"
            )
        return self.collectives[kind]


def load_cpu_system(path: str) -> CpuSystem:
    """Read a system of CPUs.

    Raises:
        BenchmarkError: The file cannot be read, or lacks a figure.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        _check_figures(value)
        return from_json(CpuSystem, value)
    except (OSError, ValueError, TypeError) as error:
        raise BenchmarkError(
            f"system {path}: {error}; write it with `plan systems --calibrate RECORD... --out FILE`"
        ) from error


def cpu_system_json(system: CpuSystem) -> dict[str, Any]:
    """Return the value for the JSON file of a system."""
    return to_json(system)


def _check_figures(value: Any) -> None:
    """Raise ValueError that names a figure that is missing or negative."""
    _check_fields(CpuSystem, value, where="")
    _check_fields(CpuRates, value["rates"], where="rates.")
    for name in ("forward_call_seconds", "backward_call_seconds", "step_deviation"):
        _check_number(value["rates"].get(name, 0.0), f"rates.{name}")
    works = {**value["rates"]["operators"], "others": value["rates"]["others"]}
    for operator, work in works.items():
        for name, number in work.items():
            _check_number(number, f"rates.{operator}.{name}")


def _check_fields(kind: Any, value: Any, *, where: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where or 'the file '}is {value!r}; expected an object")
    for each in dataclasses.fields(kind):
        is_required = each.default is each.default_factory is dataclasses.MISSING
        if is_required and value.get(each.name) is None:
            raise ValueError(f"{where}{each.name} is missing")


def _check_number(value: Any, name: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; expected a number from 0 to 1")


def name_of(processor: str) -> str:
    """Return a name for a machine with a processor."""
    return re.sub(r"[^a-z0-9]+", "_", processor.lower()).strip("_") or "cpu"
