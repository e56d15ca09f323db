"""Lookup of tuned launch options in the file of a chip."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections.abc import Mapping

import torch
from triton.runtime.jit import JITFunction

TUNED = ("num_warps", "num_stages")
"""Options that change the speed and, through the order of sums, the rounding."""

TunedOptions = dict[str, int]
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


def table_for(device_name: str) -> Mapping[str, TunedOptions] | None:
    """Return the options of a chip by launch key; None if it has no file."""
    name = file_name(device_name)
    module = None if name is None else f"{__package__}.{name}"
    if module is None or importlib.util.find_spec(module) is None:
        return None
    return importlib.import_module(module).OPTIONS


def describe(device: torch.device) -> str:
    """Return a line about the tuning of a device for the log of a run."""
    if device.type != "cuda":
        return "kernels: no tuning on this device"
    name = torch.cuda.get_device_name(device)
    table = table_for(name)
    if table is None:
        return (
            f"kernels: no tuning data for {name}, using safe launch options; "
            "docs/kernels.md describes how to measure faster ones"
        )
    return f"kernels: {len(table)} launches tuned for {name}"


@functools.cache
def active_table() -> Mapping[str, TunedOptions]:
    """Return the table of the GPU of this process, looked up once; empty without one."""
    if not torch.cuda.is_available():
        return {}
    return table_for(torch.cuda.get_device_name()) or {}


def tuned(kernel: JITFunction, args: tuple, options: Options) -> Options:
    """Return the options of a launch, updated from the file of the chip."""
    table = active_table()
    return options | table.get(launch_key(kernel, args, options), {}) if table else options
