"""Systems that a run may be planned for: GPUs, nodes, links, power and price, from JSON files."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from openfold_opt.kernels.chips import CHIPS, Chip, chip_named

FOLDER = Path(__file__).with_name("systems")
SUFFIX = ".json"
_CPU_FIELD = "processor"
"""A field that only systems of CPUs have (cpu_system.py)."""
PRICE_UNITS = ("GPU-hour", "node-hour")


@dataclass(frozen=True, kw_only=True)
class Link:
    """What one GPU sends over, in one direction, while all GPUs of the node do the same.

    A transfer of n bytes takes latency_seconds + n / bytes_per_second.
    """

    latency_seconds: float
    bytes_per_second: float

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class Price:
    """An amount per unit, such as 2.5 with "USD/GPU-hour"."""

    amount: float
    unit: str
    """Currency and PRICE_UNITS: "USD/GPU-hour" or "EUR/node-hour"."""

    def __post_init__(self) -> None:
        if not _is_number(self.amount) or self.amount < 0:
            raise ValueError(f"amount is {self.amount!r}; expected a number of at least 0")
        units = "|".join(PRICE_UNITS)
        if not isinstance(self.unit, str) or not re.fullmatch(rf"[A-Z]{{3}}/({units})", self.unit):
            raise ValueError(
                f"unit is {self.unit!r}; expected a currency of three letters and one of "
                f'{", ".join(PRICE_UNITS)}, such as "USD/GPU-hour"; convert the amount'
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
        if self.gpu not in (chip.name for chip in CHIPS):
            known = ", ".join(chip.name for chip in CHIPS)
            raise ValueError(f"gpu is {self.gpu!r}; expected one of {known}")
        for name in ("gpus_per_node", "cores_per_node", "num_gpus", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < 1):
                raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
        rates = ("bytes_per_second", "bf16_flops_per_second", "tf32_flops_per_second")
        for name in (*rates, "power_watts"):
            value = getattr(self, name)
            if value is not None and (not _is_number(value) or value <= 0):
                raise ValueError(f"{name} is {value!r}; expected a number > 0")
        for name, value in self.calibration.items():
            if not _is_number(value) or value <= 0:
                raise ValueError(f"calibration of {name} is {value!r}; expected a number > 0")

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
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and _CPU_FIELD in value:
            raise ValueError("a system of CPUs, for which only `plan train` has a model")
        return parse_system(value)
    except (OSError, ValueError, TypeError) as error:
        raise BenchmarkError(f"system {path}: {error}") from error


def is_cpu_system(name_or_path: str) -> bool:
    """Return whether a path is that of a system of CPUs."""
    if not name_or_path.endswith(SUFFIX):
        return False
    try:
        return _CPU_FIELD in json.loads(Path(name_or_path).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def parse_system(value: Any) -> System:
    """Build a system from the value of its JSON.

    Raises:
        ValueError: A field is missing, unknown or wrong.
    """
    values = _checked_fields(System, value, _EXAMPLE, where="")
    for name, kind in (("within_node", Link), ("between_nodes", Link), ("price", Price)):
        if values.get(name) is not None:
            fields = _checked_fields(kind, values[name], _EXAMPLE[name], where=f"{name}.")
            try:
                values[name] = kind(**fields)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    for name in ("sources", "calibration"):
        if not isinstance(values.get(name, {}), dict):
            raise ValueError(f"{name} is {values[name]!r}; expected an object")
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


def _checked_fields(
    kind: Any, value: Any, example: Mapping[str, Any], *, where: str
) -> dict[str, Any]:
    """Return a copy of the fields of a JSON object. Raises ValueError for wrong names."""
    fields = {each.name: each for each in dataclasses.fields(kind)}
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the file '}is {value!r}; expected an object: {example}")
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        names = ", ".join(where + name for name in unknown)
        raise ValueError(f"unknown field {names}; expected {', '.join(fields)}")
    for name, each in fields.items():
        required = each.default is dataclasses.MISSING
        required = required and each.default_factory is dataclasses.MISSING
        if required and value.get(name) is None:
            shown = json.dumps({name: example[name]})[1:-1]
            raise ValueError(f"{where}{name} is missing; example: {shown}")
    return dict(value)


def _check_positive(link: Link) -> None:
    for name, value in vars(link).items():
        if not _is_number(value) or value <= 0:
            raise ValueError(f"{name} is {value!r}; expected a number > 0")


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
