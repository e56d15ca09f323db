"""Systems that a run may be planned for: GPUs, nodes, links, power and price, from JSON files."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import read_json
from benchmark.perf.tools.roofline import EFFICIENCIES
from benchmark.plan.system_checks import (
    Range,
    check_line,
    check_number,
    check_object,
    check_sources,
    check_whole,
    checked_fields,
)
from openfold_opt.kernels.chips import CHIPS, Chip, chip_named

FOLDER = Path(__file__).with_name("systems")
SUFFIX = ".json"
EXPECTED = "the file of a system, as docs/plan.md describes it"
"""For errors of files that are not JSON."""
_CPU_FIELD = "processor"
"""A field that only systems of CPUs have (cpu_system.py)."""
PRICE_UNITS = ("GPU-hour", "node-hour")

# Ranges that are wider than any machine. A value outside has another unit or a typing error.
_LINK_RANGES: Mapping[str, Range] = {
    "latency_seconds": (1e-9, 10.0),
    "bytes_per_second": (1e3, 1e15),
}
_PRICE_RANGE: Range = (0.0, 1e9)
_WHOLE_RANGES: Mapping[str, Range] = {
    "gpus_per_node": (1, 10**4),
    "cores_per_node": (1, 10**6),
    "num_gpus": (1, 10**8),
    "memory_bytes": (10**8, 10**15),
}
_RANGES: Mapping[str, Range] = {
    "bytes_per_second": (1e8, 1e16),
    "bf16_flops_per_second": (1e9, 1e19),
    "tf32_flops_per_second": (1e9, 1e19),
    "power_watts": (1.0, 1e6),
}
_CALIBRATION_RANGE: Range = (1e-3, 1e3)


@dataclass(frozen=True, kw_only=True)
class Link:
    """What one GPU sends over, in one direction, while all GPUs of the node do the same.

    A transfer of n bytes takes latency_seconds + n / bytes_per_second.
    """

    latency_seconds: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        for name, allowed in _LINK_RANGES.items():
            check_number(name, getattr(self, name), allowed)


@dataclass(frozen=True, kw_only=True)
class Price:
    """An amount per unit, such as 2.5 with "USD/GPU-hour"."""

    amount: float
    unit: str
    """Currency and PRICE_UNITS: "USD/GPU-hour" or "EUR/node-hour"."""

    def __post_init__(self) -> None:
        check_number("amount", self.amount, _PRICE_RANGE)
        units = "|".join(PRICE_UNITS)
        if not isinstance(self.unit, str) or not re.fullmatch(rf"[A-Z]{{3}}/({units})", self.unit):
            raise ValueError(
                f"unit is {reprlib.repr(self.unit)}; expected a currency of three letters and one "
                f'of {", ".join(PRICE_UNITS)}, such as "USD/GPU-hour"; convert the amount'
            )

    @property
    def currency(self) -> str:
        """The currency, such as USD."""
        return self.unit.partition("/")[0]

    def per_gpu_hour(self, gpus_per_node: int) -> float:
        """Return the amount for one hour of one GPU."""
        per_node = self.unit.endswith("/node-hour")
        return self.amount / gpus_per_node if per_node else self.amount


@dataclass(frozen=True, kw_only=True)
class System:
    """A system of equal nodes. Rates are peaks of data sheets unless its sources say otherwise.

    Memory, bandwidth and peak rates of the GPU are those of openfold_opt/kernels/chips.py, unless
    the system states its own.
    """

    name: str
    gpu: str
    """Name of a chip in openfold_opt/kernels/chips.py."""
    gpus_per_node: int
    cores_per_node: int
    """Physical cores."""
    within_node: Link
    between_nodes: Link
    sources: dict[str, str]
    """Field -> where its figure comes from."""
    num_gpus: int | None = None
    """GPUs of the whole system; None: any number."""
    memory_bytes: int | None = None
    bytes_per_second: float | None = None
    """Peak bandwidth of a GPU's memory."""
    bf16_flops_per_second: float | None = None
    tf32_flops_per_second: float | None = None
    power_watts: float | None = None
    """Mean power of a node's share of one GPU during training, host included."""
    price: Price | None = None
    calibration: dict[str, float] = field(default_factory=dict)
    """Class of launches -> measured / modeled time, as `plan systems --calibrate` writes it."""

    def __post_init__(self) -> None:
        check_line("name", self.name)
        if self.gpu not in (chip.name for chip in CHIPS):
            known = ", ".join(chip.name for chip in CHIPS)
            raise ValueError(f"gpu is {reprlib.repr(self.gpu)}; expected one of {known}")
        for ranges, check in ((_WHOLE_RANGES, check_whole), (_RANGES, check_number)):
            for name, allowed in ranges.items():
                value = getattr(self, name)
                if value is not None:
                    check(name, value, allowed)
        check_sources(self.sources, [each.name for each in dataclasses.fields(self)])
        check_object("calibration", self.calibration)
        unknown = sorted(self.calibration.keys() - EFFICIENCIES.keys())
        if unknown:
            raise ValueError(f"calibration: unknown class {unknown}; expected {list(EFFICIENCIES)}")
        for name, value in self.calibration.items():
            check_number(f"calibration of {name}", value, _CALIBRATION_RANGE)

    @property
    def chip(self) -> Chip:
        """The GPU, with the figures that the system states."""
        chip = chip_named(self.gpu)
        peak = dataclasses.replace(
            chip.peak,
            bf16=self.bf16_flops_per_second or chip.peak.bf16,
            tf32=self.tf32_flops_per_second or chip.peak.tf32,
        )
        return dataclasses.replace(
            chip,
            memory_bytes=self.memory_bytes or chip.memory_bytes,
            bytes_per_second=self.bytes_per_second or chip.bytes_per_second,
            peak=peak,
        )


def system_names() -> list[str]:
    """Return the names of the systems that ship."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def load_system(name_or_path: str) -> System:
    """Read a system by its name, or by the path of its file, which ends with .json.

    Raises:
        BenchmarkError: There is no such system, or its file has a wrong, unknown or missing field.
    """
    is_path = name_or_path.endswith(SUFFIX)
    if not is_path and name_or_path not in system_names():
        raise BenchmarkError(
            f"unknown system {name_or_path!r}; there are: {', '.join(system_names())}; a file of "
            f"your own is given by its path, which ends with {SUFFIX}"
        )
    path = Path(name_or_path) if is_path else FOLDER / f"{name_or_path}{SUFFIX}"
    value = read_json(path, expected=EXPECTED)
    try:
        if isinstance(value, dict) and _CPU_FIELD in value:
            raise ValueError("a system of CPUs, for which only `plan train` has a model")
        return parse_system(value)
    except ValueError as error:
        raise BenchmarkError(f"system {path}: {error}") from error


def is_cpu_system(name_or_path: str) -> bool:
    """Return whether a path is that of a system of CPUs.

    Raises:
        BenchmarkError: The file cannot be read, or is not JSON.
    """
    if not name_or_path.endswith(SUFFIX):
        return False
    value = read_json(Path(name_or_path), expected=EXPECTED)
    return isinstance(value, dict) and _CPU_FIELD in value


def parse_system(value: Any) -> System:
    """Build a system from the value of its JSON.

    Raises:
        ValueError: A field is missing, unknown or wrong.
    """
    values = checked_fields(System, value, _EXAMPLE, where="")
    for name, kind in (("within_node", Link), ("between_nodes", Link), ("price", Price)):
        if values.get(name) is not None:
            fields = checked_fields(kind, values[name], _EXAMPLE[name], where=name)
            try:
                values[name] = kind(**fields)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return System(**values)


def system_json(system: System) -> dict[str, Any]:
    """Return the value for the JSON file of a system, without fields that are not set."""
    return {
        name: value
        for name, value in dataclasses.asdict(system).items()
        if value is not None and value != {}
    }


_EXAMPLE: Mapping[str, Any] = {
    "name": "my_cluster",
    "gpu": "h100",
    "gpus_per_node": 8,
    "cores_per_node": 112,
    "within_node": {"latency_seconds": 4e-6, "bytes_per_second": 4.5e11},
    "between_nodes": {"latency_seconds": 8e-6, "bytes_per_second": 5e10},
    "sources": {"within_node": "data sheet"},
    "num_gpus": 64,
    "memory_bytes": 80_000_000_000,
    "bytes_per_second": 3.35e12,
    "bf16_flops_per_second": 9.89e14,
    "tf32_flops_per_second": 4.95e14,
    "power_watts": 1000,
    "price": {"amount": 2.5, "unit": "USD/GPU-hour"},
    "calibration": {"memory": 1.1},
}
"""A value for each field, for error messages."""
