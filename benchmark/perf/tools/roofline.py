"""Roofline of a training step: the time that its launches need at least, and an estimate.

The floor of a launch is max(bytes / bandwidth, operations / matrix rate) + launch time, with the
sustained rates of openfold_opt/kernels/chips.py. The estimate divides both rates by what launches
of a class reach of them (EFFICIENCIES).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from benchmark.command_line import BenchmarkError
from benchmark.json_file import read_json
from benchmark.perf.tools.perf_record import from_json
from openfold_opt.kernels.chips import Chip, SustainedRates

if TYPE_CHECKING:
    # Tracing loads torch and Triton, which plans do without.
    from benchmark.perf.tools.launch_trace import Launch

LaunchClass = Literal[
    "wgmma",
    "mma",
    "mma_sm8x",
    "fma",
    "memory",
    "few_programs",
    "cublas",
    "cublas_float32",
    "pytorch",
]


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """Shares of the sustained rates that a class of launches reaches."""

    memory: float
    matrix: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) and x > 0 for x in (self.memory, self.matrix)):
            raise ValueError(f"memory={self.memory}, matrix={self.matrix}: expected numbers > 0")


EFFICIENCIES: Mapping[LaunchClass, Efficiency] = {
    "wgmma": Efficiency(memory=0.8, matrix=0.5),
    "mma": Efficiency(memory=0.8, matrix=0.33),
    "mma_sm8x": Efficiency(memory=0.8, matrix=0.5),
    "fma": Efficiency(memory=0.8, matrix=0.055),
    "memory": Efficiency(memory=0.8, matrix=1.0),
    "few_programs": Efficiency(memory=0.8, matrix=0.5),
    "cublas": Efficiency(memory=0.8, matrix=0.7),
    "cublas_float32": Efficiency(memory=0.8, matrix=0.35),
    "pytorch": Efficiency(memory=0.7, matrix=1.0),
}
"""Assumed before any kernel has run on a GPU. Nothing is measured, nothing is fitted to a result.

The sustained rates are those of large copies and products, so 1 is a copy or a product of cuBLAS
at its best.
- memory: reads and writes of a few MB with strided rows do not reach the rate of a large copy: 0.8.
- wgmma: the Triton attention that the authors of FlashAttention-3 compared with on an H100 reaches
  about 340 TFLOP/s for heads of 64 and sequences of 512. That is 0.57 of 600. The heads and the
  inner dimensions here are smaller: 0.5.
- mma: on Hopper, instructions of a warp reach two thirds of the rate of those of a warpgroup.
- mma_sm8x: before Hopper they are the fastest instructions: as wgmma.
- fma: half of the float32 peak of the CUDA cores, as a share of the matrix rate: 33.5 of 600.
- few_programs: as wgmma. All estimates are also divided by the share of the multiprocessors that
  have a program.
- cublas: inner dimensions of 32 to 512 are too short for the full rate. TF32 has half of it.
- pytorch: as memory; some operands are permuted and not read in order.
"""


@dataclass(frozen=True, kw_only=True)
class KernelCode:
    """What the machine code of a Triton kernel says."""

    registers: int
    shared_bytes: int
    spills: int
    wgmma: int
    mma: int
    fma: int


CodeOf = Mapping[tuple[str, str], KernelCode]
"""Kernel and signature -> its machine code."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Sums over launches."""

    launches: float = 0
    bytes: float = 0
    flops: float = 0
    """Operations of matrix products."""
    floor_seconds: float = 0.0
    estimate_seconds: float = 0.0

    def plus(self, other: Work, times: float = 1) -> Work:
        """Return self + times * other."""
        names = vars(self)
        return Work(**{name: names[name] + times * vars(other)[name] for name in names})


Key = Callable[["Launch"], tuple]
Sums = dict[tuple, Work]
"""Key of the launches -> their sums."""


def classify(launch: Launch, code: KernelCode | None, chip: Chip) -> LaunchClass:
    """Return the class of a launch, from its grid and the instructions of its kernel.

    A HGMMA instruction computes tiles of at least 64 rows. Kernels without matrix products are in
    the class "memory" for any number of programs.
    """
    if launch.programs is None:
        if not launch.flops:
            return "pytorch"
        return "cublas_float32" if launch.is_float32 else "cublas"
    if not launch.flops:
        return "memory"
    if launch.programs < chip.num_sms:
        return "few_programs"
    if code is None:
        raise ValueError(f"{launch.kernel} ({launch.signature}) was not compiled")
    if code.mma:
        return "mma" if chip.capability >= 90 else "mma_sm8x"
    return "wgmma" if code.wgmma else "fma"


def floor_seconds(launch: Launch, rates: SustainedRates) -> float:
    """Return the least time of a launch."""
    return _seconds(launch, rates, Efficiency(memory=1.0, matrix=1.0))


def _seconds(
    launch: Launch, rates: SustainedRates, efficiency: Efficiency, *, share_of_sms: float = 1.0
) -> float:
    memory = launch.bytes / (rates.bytes_per_second * efficiency.memory)
    matrix = launch.flops / (rates.matmul_flops_per_second * efficiency.matrix)
    return max(memory, matrix) / share_of_sms + rates.launch_seconds


@dataclass(frozen=True, kw_only=True)
class RooflineModel:
    """A chip, the machine code of the kernels for it, and efficiencies."""

    chip: Chip
    rates: SustainedRates
    efficiencies: Mapping[LaunchClass, Efficiency]
    code: CodeOf | None
    """None: the kernels were not compiled, and there is no estimate."""

    def classify(self, launch: Launch) -> LaunchClass | None:
        """Return the class of a launch; None if the kernels were not compiled."""
        if self.code is None:
            return None
        return classify(launch, self.code.get((launch.kernel, launch.signature or "")), self.chip)

    def work(self, launch: Launch) -> Work:
        """Return bytes, operations and times of one launch."""
        return Work(
            launches=1,
            bytes=launch.bytes,
            flops=launch.flops,
            floor_seconds=floor_seconds(launch, self.rates),
            estimate_seconds=self._estimate_seconds(launch),
        )

    def _estimate_seconds(self, launch: Launch) -> float:
        kind = self.classify(launch)
        if kind is None:
            return 0.0
        num_sms = self.chip.num_sms
        share = min(1.0, (launch.programs or num_sms) / num_sms)
        return _seconds(launch, self.rates, self.efficiencies[kind], share_of_sms=share)

    def sum_by(self, launches: Iterable[Launch], key: Key) -> Sums:
        """Return the sums over the launches with the same key."""
        sums: Sums = {}
        for launch in launches:
            name = key(launch)
            sums[name] = sums.get(name, Work()).plus(self.work(launch))
        return sums


def extrapolate(one: Sums, two: Sums, further: int) -> Sums:
    """Return one + further * (two - one) for each key: every Evoformer block adds the same."""
    sums = {}
    for key in dict.fromkeys([*one, *two]):
        first, second = one.get(key, Work()), two.get(key, Work())
        sums[key] = first.plus(second.plus(first, -1), further)
    return sums


def add_iterations(without: Sums, with_one: Sums, number: float) -> Sums:
    """Return the step with a number of recycling iterations, from those with 0 and 1."""
    return {
        key: without.get(key, Work()).plus(
            with_one.get(key, Work()).plus(without.get(key, Work()), -1), number
        )
        for key in dict.fromkeys([*without, *with_one])
    }


def total(works: Iterable[Work]) -> Work:
    """Return the sum."""
    result = Work()
    for work in works:
        result = result.plus(work)
    return result


def read_efficiencies(path: Path) -> dict[LaunchClass, Efficiency]:
    """Read a JSON file of {class: {"memory": share, "matrix": share}}, such as measured values.

    Raises:
        BenchmarkError: The file cannot be read, or has other classes than EFFICIENCIES, or values
            that are not positive numbers.
    """
    example = '{"mma": {"memory": 0.8, "matrix": 0.33}, ...}'
    expected = f"a JSON object such as {example} with the classes {get_args(LaunchClass)}"
    values = read_json(path, expected=expected)
    try:
        if not isinstance(values, dict) or set(values) != set(EFFICIENCIES):
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"found {found}")
        return {name: from_json(Efficiency, value) for name, value in values.items()}
    except (ValueError, TypeError) as error:
        raise BenchmarkError(f"--efficiencies {path}: {error}; expected {expected}") from error
