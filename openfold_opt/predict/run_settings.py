"""Settings of a run with their origins, and what identifies the run of an output directory."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass

Value = str | int | float | bool | None
PACKAGE = "openfold-opt"
FREE_SETTINGS = ("dap", "replicas", "device", "pictures")
"""Settings that another run in the same directory may change."""


@dataclass(frozen=True, kw_only=True)
class RunSetting:
    """A setting of the run with its origin."""

    value: Value
    origin: str
    """"option", "default", "weights" or "run"."""

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif value in (None, ""):
            value = "none"
        return f"{value} ({self.origin})"


@dataclass(frozen=True, kw_only=True)
class WeightsFacts:
    """A set of weights in summary.json."""

    name: str
    path: str
    kind: str
    sha256: str
    settings: Mapping[str, RunSetting]
    """Settings that differ between weights: max_msa_clusters, max_extra_msa, ..."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run did apart from its chains."""

    settings: Mapping[str, RunSetting]
    weights: tuple[WeightsFacts, ...]
    device: str

    def identity(self) -> dict[str, Value]:
        """Return what must be equal for another run to add chains to the same directory."""
        values: dict[str, Value] = {
            name: setting.value
            for name, setting in self.settings.items()
            if name not in FREE_SETTINGS
        }
        for weights in self.weights:
            values[f"SHA-256 of {weights.name}"] = weights.sha256
            for name, setting in weights.settings.items():
                values[f"{name} of {weights.name}"] = setting.value
        return values

    def run_id(self) -> str:
        """Return 16 characters that differ if the identity differs. Every record has them."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def package_version(name: str) -> str:
    """Return the version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed (checkout)"
