"""GPUs that the kernels are compiled for or may run on, and their limits.

Source: NVIDIA, CUDA C++ Programming Guide, section "Technical Specifications per Compute
Capability", row "Maximum amount of shared memory per thread block". This is the most that a kernel
can allocate: the shared memory of a multiprocessor minus 1 KiB, which the driver reserves.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One model of GPU."""

    name: str
    capability: int
    """Compute capability, ten times the major number plus the minor number: 90 for 9.0."""
    shared_bytes: int
    """Largest shared memory of one thread block."""


CHIPS = (
    Chip(name="A100", capability=80, shared_bytes=163 * 1024),
    Chip(name="A40", capability=86, shared_bytes=99 * 1024),
    Chip(name="L40S", capability=89, shared_bytes=99 * 1024),
    Chip(name="H100", capability=90, shared_bytes=227 * 1024),
    Chip(name="H200", capability=90, shared_bytes=227 * 1024),
    Chip(name="B200", capability=100, shared_bytes=227 * 1024),
)


def shared_bytes_of(capability: int) -> int | None:
    """Return the shared memory of one thread block; None for a capability not in CHIPS."""
    matches = (chip.shared_bytes for chip in CHIPS if chip.capability == capability)
    return next(matches, None)
