"""Memory of the device that predicts and of its host."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from openfold_opt.kernels.chips import CHIPS, Chip, chip_named, find_chip

FREE_SHARE = 0.03
"""Fraction of the memory of a device that a plan leaves free."""
CONTEXT_BYTES = 600 * 2**20
"""Memory of a GPU that its driver and the libraries take (an assumption)."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device and what a prediction may use of it."""

    name: str
    type: Literal["cpu", "cuda"]
    usable_bytes: int
    """Memory for weights and tensors; on a CPU shared by all ranks."""
    host_bytes: int | None = None
    """Available memory of the host; None if it is unknown."""
    chip: Chip | None = None
    """None for the CPU or a GPU that is not in kernels/chips.py."""

    @property
    def is_cpu(self) -> bool:
        """Whether the device is a CPU."""
        return self.type == "cpu"


@cache
def device_of(device: torch.device | str | Device) -> Device:
    """Return the memory of a device of this machine, or of a GPU by name ("h200").

    The available memory is read at the first call. A Device is returned unchanged.

    Raises:
        ValueError: there is no GPU of this name.
    """
    if isinstance(device, Device):
        return device
    if isinstance(device, str) and device != "cpu" and not device.startswith("cuda"):
        return _named(device)
    device = torch.device(device)
    if device.type == "cpu":
        available = available_host_bytes()
        return Device(
            name="cpu",
            type="cpu",
            usable_bytes=int((1 - FREE_SHARE) * available),
            host_bytes=available,
        )
    properties = torch.cuda.get_device_properties(device)
    # Memory that PyTorch has reserved is available to the prediction, too.
    available = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return Device(
        name=properties.name,
        type="cuda",
        usable_bytes=min(_usable(properties.total_memory), available),
        host_bytes=available_host_bytes(),
        chip=find_chip(properties.name),
    )


def _named(name: str) -> Device:
    if name not in {chip.name for chip in CHIPS}:
        known = ", ".join(chip.name for chip in CHIPS)
        raise ValueError(f"unknown device {name!r}; expected cpu or one of the GPUs {known}")
    return device_of_chip(chip_named(name))


def device_of_chip(chip: Chip) -> Device:
    """Return a GPU of another machine, whose host memory is unknown."""
    return Device(name=chip.name, type="cuda", usable_bytes=_usable(chip.memory_bytes), chip=chip)


def _usable(total_bytes: int) -> int:
    return int((1 - FREE_SHARE) * total_bytes) - CONTEXT_BYTES


def synchronize(device: torch.device) -> None:
    """Wait for the work of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMeter:
    """Measures the peak memory of a prediction, for comparison with its plan."""

    def __init__(self, device: torch.device, *, held_bytes: int) -> None:
        """Start the measurement.

        Args:
            device: of the prediction.
            held_bytes: weights and features, which a CPU has in memory already.
        """
        self._device, self._held_bytes = device, held_bytes
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _reset_peak_resident_bytes()
            self._resident_before = _status_bytes("VmRSS")

    def peak_bytes(self, *, has_graphs: bool) -> int:
        """Return the peak since the start.

        On a GPU this is the memory of the tensors, or what is reserved if there are graphs, whose
        memory does not count as allocated. On a CPU it is `held_bytes` and the growth of the
        resident set, without the interpreter and its libraries.
        """
        if self._device.type == "cuda":
            measure = (
                torch.cuda.max_memory_reserved if has_graphs else torch.cuda.max_memory_allocated
            )
            return measure(self._device)
        return self._held_bytes + _status_bytes("VmHWM") - self._resident_before


def _reset_peak_resident_bytes() -> None:
    """Start a new peak of the resident set (Linux: proc(5), clear_refs)."""
    # Without the permission, the peak of an earlier, longer chain counts.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(name: str) -> int:
    """Return a size of this process from /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def available_host_bytes() -> int:
    """Return the memory of this machine that programs can still allocate."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (kib,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kib) * 1024
