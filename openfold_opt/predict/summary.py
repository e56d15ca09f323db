"""summary.json: settings, weights and the scores of all chains of an output directory.

The file has the schema version, the settings of the run with their origins, the weights with their
SHA-256, versions, device, the ranking of the chains, and one entry per chain. It is written from
the records of the chains (chain_record.py), atomically after every chain, so it can be lost without
losing a result. docs/predict.md describes the fields.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from openfold_opt.predict.chain_record import ChainRecord, read_record
from openfold_opt.predict.run_settings import PACKAGE, RunFacts, Value, package_version
from openfold_opt.protein.shard_format import write_atomically

SUMMARY_FILE = "summary.json"
SCHEMA_VERSION = 2
PACKAGES = (PACKAGE, "numpy", "modelcif", "gemmi")
"""Packages whose versions are stored, besides torch."""


class SummaryWriter:
    """Keeps summary.json up to date with the records of the chains. Only rank 0 has one."""

    def __init__(self, folder: Path, facts: RunFacts, *, chains: Sequence[tuple[str, str]]) -> None:
        """Read which chains an earlier run with the same identity has added to the directory.

        Args:
            folder: the output directory.
            facts: settings, weights and device.
            chains: name and stem of every chain of the input.
        """
        self.chains = list(chains)
        self._folder, self._facts = folder, facts
        self._others = _earlier_chains(folder, facts, {stem for _, stem in chains})
        self._finished: dict[str, ChainRecord] = {}
        self._last_write, self._write_seconds = time.monotonic(), 0.0

    def update(self) -> None:
        """Write the file after a chain.

        With very many short chains this is skipped most of the time, so that it takes at most a
        twentieth of the run.
        """
        if time.monotonic() - self._last_write >= 20.0 * self._write_seconds:
            self.write()

    def write(self) -> list[str]:
        """Write the file atomically, and return the names of chains without a structure."""
        started = time.monotonic()
        records, pending = [], []
        for name, stem in (*self.chains, *self._others):
            record = self._record(stem)
            if record is None:
                pending.append(name)
            else:
                records.append(record)
        statuses = [record.status for record in records]
        content = {
            "schema_version": SCHEMA_VERSION,
            "identity": self._facts.identity(),
            "settings": {name: asdict(value) for name, value in self._facts.settings.items()},
            "weights": [asdict(weights) for weights in self._facts.weights],
            "device": self._facts.device,
            "versions": versions(),
            "ranking": _ranking(records),
            "num_finished": statuses.count("finished"),
            "num_failed": statuses.count("failed"),
            "pending": pending,
            "chains": [record.short_form() for record in records],
        }
        write_atomically(self._folder / SUMMARY_FILE, json.dumps(content, indent=1).encode())
        self._last_write = time.monotonic()
        self._write_seconds = self._last_write - started
        return [name for name, stem in self.chains if stem not in self._finished]

    def _record(self, stem: str) -> ChainRecord | None:
        """Return the record of a chain. Those of finished chains are read once."""
        record = self._finished.get(stem) or read_record(self._folder, stem)
        if record is not None and record.status == "finished":
            self._finished[stem] = record
        return record


def _ranking(records: Sequence[ChainRecord]) -> list[dict[str, object]]:
    """Return the finished chains by the mean pLDDT of their best structure, highest first."""
    finished = [record for record in records if record.status == "finished"]
    finished.sort(key=lambda record: record.models[0].mean_plddt, reverse=True)
    return [
        {
            "name": record.name,
            "mean_plddt": record.models[0].mean_plddt,
            "weights": [model.weights for model in record.models],
        }
        for record in finished
    ]


def _earlier_chains(folder: Path, facts: RunFacts, stems: set[str]) -> list[tuple[str, str]]:
    """Return name and stem of chains of an earlier input of the same run."""
    path = folder / SUMMARY_FILE
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["identity"] != facts.identity():
            return []
        earlier = [(entry["name"], entry["stem"]) for entry in content["chains"]]
    except (ValueError, KeyError, TypeError):
        # The directory is overwritten.
        return []
    return [(name, stem) for name, stem in earlier if stem not in stems]


def read_identity(folder: Path) -> dict[str, Value] | None:
    """Return the identity of the run of a directory; None if there is no run.

    Raises:
        ValueError: there is a summary.json that is not the summary of a prediction.
    """
    path = folder / SUMMARY_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, identity = content["schema_version"], content["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not the summary of a prediction ({type(error).__name__}: {error}); choose "
            "another --out, or replace it with --overwrite"
        ) from error
    if version != SCHEMA_VERSION or not isinstance(identity, dict):
        raise ValueError(
            f"{path} has the schema version {version}; this version of the package writes "
            f"{SCHEMA_VERSION}: choose another --out, or replace the run with --overwrite"
        )
    return identity


def describe_differences(
    earlier: Mapping[str, Value], requested: Mapping[str, Value], *, limit: int = 4
) -> str:
    """Return the differences of two identities in words; "" if they are equal."""
    names = [name for name in {**earlier, **requested} if earlier.get(name) != requested.get(name)]
    shown = [
        f"{name} was {earlier.get(name, 'not set')} and is {requested.get(name, 'not set')}"
        for name in names[:limit]
    ]
    if len(names) > limit:
        shown.append(f"and {len(names) - limit} more differences")
    return "; ".join(shown)


def versions() -> dict[str, str]:
    """Return the versions of Python, CUDA and packages."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        **{name: package_version(name) for name in PACKAGES},
    }
