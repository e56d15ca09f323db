"""GPUs that the kernels are compiled for or may run on: memory, rates, limits.

Sources, NVIDIA's documents unless stated otherwise:
- Memory, bandwidth and peak rates: the data sheets of A100 (2021), A40 (2021), L40S (2023), H100
  (2023), H200 (2024) and HGX B200 (2025). Peaks are dense: where a data sheet lists rates with
  sparsity, half of them. An A100 of 80 GB has the bandwidth of the SXM module.
- Multiprocessors: the white papers of the architectures (Ampere, Ada, Hopper). NVIDIA has not
  published the number of a B200; 148 is what its driver reports.
- Shared memory: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", row
  "Maximum amount of shared memory per thread block". This is the most that a kernel can allocate:
  the shared memory of a multiprocessor minus 1 KiB, which the driver reserves.
- Sustained rates and launch time: assumptions, nothing is measured (see SustainedRates).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BANDWIDTH_SHARE = 5 / 6
_MATMUL_SHARE = 600 / 989
_GRAPH_LAUNCH_SECONDS = 1.2e-6


@dataclass(frozen=True, kw_only=True)
class PeakRates:
    """Dense peaks in operations per second."""

    fp32: float
    """float32 on the CUDA cores."""
    tf32: float
    bf16: float

    def of_precision(self, precision: str | None) -> float | None:
        """Return the peak of a precision; None if it is unknown."""
        return {"fp32": self.fp32, "tf32": self.tf32, "bf16": self.bf16}.get(precision or "")


@dataclass(frozen=True, kw_only=True)
class SustainedRates:
    """Rates that large copies and matrix products are assumed to reach.

    Nothing here is measured. An H200 is assumed to sustain 4.0 of 4.8 TB/s and 600 of 989 TFLOP/s
    in bf16, and a kernel of a CUDA graph to take 1.2 us from the end of the previous kernel to its
    own start and end. The other chips get the same shares of their peaks and the same launch time.
    """

    bytes_per_second: float
    matmul_flops_per_second: float
    """Matrix products in bf16."""
    launch_seconds: float = _GRAPH_LAUNCH_SECONDS


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One model of GPU."""

    name: str
    """Name on the command line."""
    pattern: str
    """Regular expression that finds the chip in the name that its driver reports."""
    capability: int
    """Compute capability, ten times the major number plus the minor number: 90 for 9.0."""
    memory_bytes: int
    bytes_per_second: float
    """Peak bandwidth of the memory."""
    peak: PeakRates
    num_sms: int
    """Multiprocessors."""
    shared_bytes: int
    """Largest shared memory of one thread block."""

    @property
    def short_name(self) -> str:
        """Name without form factor and memory, such as H100."""
        return self.name.partition("-")[0].upper()

    @property
    def sustained(self) -> SustainedRates:
        """Rates that estimates use."""
        return SustainedRates(
            bytes_per_second=_BANDWIDTH_SHARE * self.bytes_per_second,
            matmul_flops_per_second=_MATMUL_SHARE * self.peak.bf16,
        )


_KIB, _GB = 1024, 10**9
_A100_PEAK = PeakRates(fp32=19.5e12, tf32=156e12, bf16=312e12)
_HOPPER_PEAK = PeakRates(fp32=67e12, tf32=495e12, bf16=989e12)

CHIPS = (
    Chip(
        name="a100-40",
        pattern=r"A100.*40 ?GB",
        capability=80,
        memory_bytes=40 * _GB,
        bytes_per_second=1.555e12,
        peak=_A100_PEAK,
        num_sms=108,
        shared_bytes=163 * _KIB,
    ),
    Chip(
        name="a100-80",
        pattern=r"A100",
        capability=80,
        memory_bytes=80 * _GB,
        bytes_per_second=2.039e12,
        peak=_A100_PEAK,
        num_sms=108,
        shared_bytes=163 * _KIB,
    ),
    Chip(
        name="a40",
        pattern=r"A40(?!\d)",
        capability=86,
        memory_bytes=48 * _GB,
        bytes_per_second=0.696e12,
        peak=PeakRates(fp32=37.4e12, tf32=74.8e12, bf16=149.7e12),
        num_sms=84,
        shared_bytes=99 * _KIB,
    ),
    Chip(
        name="l40s",
        pattern=r"L40S",
        capability=89,
        memory_bytes=48 * _GB,
        bytes_per_second=0.864e12,
        peak=PeakRates(fp32=91.6e12, tf32=183e12, bf16=362e12),
        num_sms=142,
        shared_bytes=99 * _KIB,
    ),
    Chip(
        name="h100-pcie",
        pattern=r"H100\W+PCIE",
        capability=90,
        memory_bytes=80 * _GB,
        bytes_per_second=2.0e12,
        peak=PeakRates(fp32=51e12, tf32=378e12, bf16=756e12),
        num_sms=114,
        shared_bytes=227 * _KIB,
    ),
    Chip(
        name="h100",
        pattern=r"H100",
        capability=90,
        memory_bytes=80 * _GB,
        bytes_per_second=3.35e12,
        peak=_HOPPER_PEAK,
        num_sms=132,
        shared_bytes=227 * _KIB,
    ),
    Chip(
        name="h200",
        pattern=r"G?H200",
        capability=90,
        memory_bytes=141 * _GB,
        bytes_per_second=4.8e12,
        peak=_HOPPER_PEAK,
        num_sms=132,
        shared_bytes=227 * _KIB,
    ),
    Chip(
        name="b200",
        pattern=r"B200",
        capability=100,
        memory_bytes=180 * _GB,
        bytes_per_second=7.7e12,
        peak=PeakRates(fp32=75e12, tf32=1_125e12, bf16=2_250e12),
        num_sms=148,
        shared_bytes=227 * _KIB,
    ),
)
"""The first chip whose pattern matches is the right one."""


def chip_named(name: str) -> Chip:
    """Return a chip by its name on the command line.

    Raises:
        ValueError: There is no such chip.
    """
    for chip in CHIPS:
        if chip.name == name:
            return chip
    known = ", ".join(chip.name for chip in CHIPS)
    raise ValueError(
        f"unknown GPU {name!r}; expected one of {known} (openfold_opt/kernels/chips.py)"
    )


def find_chip(text: str) -> Chip | None:
    """Return the chip whose name a driver or the name of a system contains; None if unknown."""
    matches = (chip for chip in CHIPS if re.search(chip.pattern, text, re.IGNORECASE))
    return next(matches, None)


def shared_bytes_of(capability: int) -> int | None:
    """Return the shared memory of one thread block; None for a capability not in CHIPS."""
    matches = (chip.shared_bytes for chip in CHIPS if chip.capability == capability)
    return next(matches, None)
