"""Complete configurations, one file each with build() -> RunConfig; the files of this package are the registry."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from benchmark.errors import BenchmarkError

if TYPE_CHECKING:
    from openfold_opt.train.config import RunConfig


def preset_names() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build_preset(name: str) -> RunConfig:
    """The configuration of a preset; BenchmarkError lists what exists if there is none of this name."""
    if name not in preset_names():
        raise BenchmarkError(f"unknown preset {name!r}; there are: {', '.join(preset_names())}")
    return importlib.import_module(f"{__name__}.{name}").build()
