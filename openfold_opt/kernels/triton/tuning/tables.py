"""Finding the options of a launch in the file of the chip."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections.abc import Mapping
from typing import Any

import torch

TUNED = ("num_warps", "num_stages")
"""Options that change nothing but speed and, in the order of sums, the last digits."""

Options = dict[str, int]


def launch_key(kernel: Any, args: tuple, options: Mapping[str, Any]) -> str:
    """Name under which a launch is tuned: kernel, its compile-time constants, dtype of its first tensor."""
    dtype = next(
        (str(x.dtype).removeprefix("torch.") for x in args if isinstance(x, torch.Tensor)), "none"
    )
    constants = [f"{name}={value}" for name, value in sorted(options.items()) if name not in TUNED]
    return " ".join(
        [f"{kernel.fn.__module__.partition('triton.')[2]}.{kernel.fn.__name__}", *constants, dtype]
    )


def file_name(device_name: str) -> str | None:
    """ "NVIDIA H200" -> "h200"; None if there is no name of a chip in it."""
    found = re.search(r"\b([A-Z]{1,2}\d{2,4})\b", device_name)
    return None if found is None else found.group(1).lower()


def table_for(device_name: str) -> Mapping[str, Options] | None:
    """The options of a chip by launch key; None if nobody tuned for it."""
    name = file_name(device_name)
    module = None if name is None else f"{__package__}.{name}"
    if module is None or importlib.util.find_spec(module) is None:
        return None
    return importlib.import_module(module).OPTIONS


def describe(device: torch.device) -> str:
    """What a run says of it at its start."""
    if device.type != "cuda":
        return "kernels: no tuning on this device"
    name = torch.cuda.get_device_name(device)
    table = table_for(name)
    if table is None:
        return f"kernels: no tuning data for {name}, so safe launch options; `python -m benchmark perf tune` measures better ones"
    return f"kernels: {len(table)} launches tuned for {name}"


@functools.cache
def active_table() -> Mapping[str, Options]:
    """Of the chip of this process, looked up once; empty where there is none."""
    if not torch.cuda.is_available():
        return {}
    return table_for(torch.cuda.get_device_name()) or {}


def tuned(kernel: Any, args: tuple, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a launch, with what the chip's file says of it."""
    table = active_table()
    return options | table.get(launch_key(kernel, args, options), {}) if table else options
