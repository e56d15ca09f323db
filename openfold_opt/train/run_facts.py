"""Facts that must be equal on all ranks of a run: data, configuration, code and versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

import torch

from openfold_opt.train.config import RunConfig, config_fields

SOURCE_SUFFIXES = (".py", ".cpp", ".h")
DIGEST_CHARACTERS = 12
"""Characters of the SHA-256 of a source file that messages show."""


def run_facts(
    config: RunConfig, *, data_checksum: str | None, seed: int, device: torch.device
) -> dict[str, str]:
    """Return facts by name, which require_same_facts compares over the ranks.

    Code is compared by its source files, since a container has no version control.
    """
    facts = {
        "the data set's checksum": str(data_checksum),
        "the seed": str(seed),
        "the device type": device.type,
        "the version of torch": torch.__version__,
        "the version of triton": _version("triton"),
    }
    facts |= {
        f"the configuration's {leaf.path}": json.dumps(leaf.value, default=str)
        for leaf in config_fields(config)
    }
    return facts | source_digests("openfold_opt")


def source_digests(package: str) -> dict[str, str]:
    """Return the digest of each source file of an imported package, by description."""
    file = sys.modules[package].__file__
    assert file is not None
    folder = Path(file).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in SOURCE_SUFFIXES)
    return {
        f"the source file {package}/{path.relative_to(folder)}": _digest(path.read_bytes())
        for path in files
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARACTERS]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
