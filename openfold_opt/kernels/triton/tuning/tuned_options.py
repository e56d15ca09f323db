"""Lookup of tuned launch options in the file of a chip, by kind and size of a launch.

The kind is the launch key, the size is the number of programs. It depends on the rows or edges of
the rank, so that each number of ranks that share a sample has its own options.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import torch
from triton.runtime.jit import JITFunction

TUNED = ("num_warps", "num_stages")
"""Options that change the speed and, through the order of sums, the rounding."""

TunedOptions = dict[str, int]
OptionsByPrograms = Mapping[int, TunedOptions]
"""Number of programs of a launch -> its options; empty where the default options are kept."""
Options = dict[str, int | float | str | bool]
"""Compile-time constants and launch options by name."""


def launch_key(kernel: JITFunction, args: tuple, options: Options) -> str:
    """Return the key of a launch: kernel, compile-time constants, dtype of the first tensor."""
    dtype = next(
        (str(x.dtype).removeprefix("torch.") for x in args if isinstance(x, torch.Tensor)), "none"
    )
    constants = [f"{name}={value}" for name, value in sorted(options.items()) if name not in TUNED]
    return " ".join(
        [f"{kernel.fn.__module__.partition('triton.')[2]}.{kernel.fn.__name__}", *constants, dtype]
    )


def file_name(device_name: str) -> str | None:
    """Return the name of the file of a chip: "h200" for "NVIDIA H200"; None if unknown."""
    match = re.search(r"\b([A-Z]{1,2}\d{2,4})\b", device_name)
    return None if match is None else match.group(1).lower()


@dataclass(frozen=True, kw_only=True)
class TuningTable:
    """The file of a chip."""

    options: Mapping[str, OptionsByPrograms]
    """By launch key."""
    source: str
    """File, date, and what was measured."""


def table_for(device_name: str) -> TuningTable | None:
    """Return the options of a chip; None if it has no file."""
    name = file_name(device_name)
    module = None if name is None else f"{__package__}.{name}"
    if module is None or importlib.util.find_spec(module) is None:
        return None
    return table_of(importlib.import_module(module))


def table_of(file: ModuleType) -> TuningTable:
    """Return the table of a tuning file."""
    sizes = ", ".join(map(str, file.DAP_SIZES))
    return TuningTable(
        options=file.OPTIONS,
        source=f"{file.__name__}, measured on {file.DATE} with the shapes of {file.PRESET} in "
        f"{file.PRECISION} at DAP {sizes}",
    )


def describe(device: torch.device) -> str:
    """Return a line about the options of the launches on a device for the log of a run."""
    if device.type != "cuda":
        return "kernels: no tuning on this device"
    name = torch.cuda.get_device_name(device)
    table = table_for(name)
    if table is None:
        return (
            f"kernels: no tuning data for {name}, using safe launch options, with tiles chosen by "
            "the number of programs; docs/kernels.md describes how to measure faster ones"
        )
    return f"kernels: options of {len(table.options)} launches for {name} from {table.source}"


@functools.cache
def active_options() -> Mapping[str, OptionsByPrograms]:
    """Return the options for the GPU of this process, looked up once; empty without one."""
    if not torch.cuda.is_available():
        return {}
    table = table_for(torch.cuda.get_device_name())
    return {} if table is None else table.options


def tuned(kernel: JITFunction, grid: tuple[int, ...], args: tuple, options: Options) -> Options:
    """Return the options of a launch, updated from the file of the chip.

    Of the numbers of programs that were measured, the one with the smallest ratio to that of the
    launch determines them.
    """
    table = active_options()
    by_programs = table.get(launch_key(kernel, args, options)) if table else None
    if by_programs is None:
        return options
    programs = math.prod(grid)
    nearest = min(by_programs, key=lambda measured: abs(math.log(measured / programs)))
    return options | by_programs[nearest]
