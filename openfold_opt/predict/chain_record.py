"""STEM.json: scores and files of one chain, or why it failed.

The file is written last and atomically, so a chain is finished if its record says so and the files
that the record lists have the recorded sizes. After `kill -9` a chain is either finished or not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from openfold_opt.protein.shard_format import write_atomically

SCHEMA_VERSION = 1
RECORD_SUFFIX = ".json"
Status = Literal["finished", "failed"]


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """Result of one set of weights for one chain."""

    rank: int
    """1 is the best."""
    weights: str
    """Name of the weights, as in summary.json."""
    mean_plddt: float
    """Mean over the residues, 0..100."""
    ptm: float | None
    """Predicted TM-score, 0..1; None if the weights have no head for it."""
    max_pae: float | None
    """Upper end of the scale of the predicted aligned error, angstrom."""
    num_recycling_iterations: int
    """Iterations that were done; fewer than requested if the tolerance was met."""
    recycling_changes: tuple[float, ...]
    """RMS change of the CA-CA distances in each recycling iteration, angstrom."""
    seconds: float
    """Time of the forward, with synchronization."""
    peak_bytes: int
    """Peak memory of the process on the device; on a CPU, the resident set."""
    plddt: tuple[float, ...]
    """One value per residue, 0..100."""
    files: Mapping[str, str]
    """Names of the files: structure, and if they were written pae and distogram."""


@dataclass(frozen=True, kw_only=True)
class ChainFailure:
    """Why a chain has no structure."""

    kind: str
    """"input", "features", "does not fit", "out of memory", "not finite", "lost rank" or
    "other"."""
    message: str


@dataclass(frozen=True, kw_only=True)
class ChainRecord:
    """Content of STEM.json."""

    name: str
    """Name of the chain in the input."""
    stem: str
    """Start of the names of its files."""
    sequence: str
    run_id: str
    """RunFacts.run_id of the run: results of other weights or settings are not reused."""
    status: Status
    warnings: tuple[str, ...] = ()
    num_alignment_rows: int | None = None
    """Rows of the alignment without duplicates, with the query."""
    alignment_depth: tuple[int, ...] = ()
    """Rows without a gap at each residue; empty if the chain failed."""
    templates: tuple[str, ...] = ()
    """Chains that were used as templates, best first."""
    plan: Mapping[str, object] | None = None
    """The memory plan of the first set of weights."""
    feature_seconds: float = 0.0
    """Time that the run waited for the features, which are prepared ahead."""
    structure: str | None = None
    """Name of the file with the best structure."""
    models: tuple[ModelScores, ...] = ()
    """Best first."""
    file_bytes: Mapping[str, int] | None = None
    """Size of every file of the chain."""
    error: ChainFailure | None = None

    @property
    def num_residues(self) -> int:
        """Length of the sequence."""
        return len(self.sequence)

    def is_complete(self, folder: Path) -> bool:
        """Return whether the chain is finished and all its files are there with their sizes."""
        if self.status != "finished" or not self.file_bytes:
            return False
        return all(_size(folder / name) == size for name, size in self.file_bytes.items())

    def short_form(self) -> dict[str, object]:
        """Return the entry of summary.json: without the sequence and the values per residue."""
        content = self.as_json()
        for name in ("schema_version", "sequence", "alignment_depth", "file_bytes"):
            del content[name]
        for model in content["models"]:
            del model["plddt"]
        return content

    def as_json(self) -> dict:
        """Return the content of the file."""
        content = {"schema_version": SCHEMA_VERSION} | asdict(self)
        content["num_residues"] = self.num_residues
        return content


def write_record(folder: Path, record: ChainRecord) -> None:
    """Write STEM.json atomically. Raises OSError if the disk is full."""
    text = json.dumps(record.as_json(), indent=1)
    # One line for the values of all residues, instead of one line for each.
    text = re.sub(r"\[\s+([-+\d.e,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    write_atomically(folder / (record.stem + RECORD_SUFFIX), text.encode())


def read_record(folder: Path, stem: str) -> ChainRecord | None:
    """Return the record of a chain; None if there is none that this version can read."""
    path = folder / (stem + RECORD_SUFFIX)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema_version") != SCHEMA_VERSION:
            return None
        del content["num_residues"]
        content["models"] = tuple(
            ModelScores(
                **{
                    **model,
                    "plddt": tuple(model["plddt"]),
                    "recycling_changes": tuple(model["recycling_changes"]),
                }
            )
            for model in content["models"]
        )
        for name in ("warnings", "alignment_depth", "templates"):
            content[name] = tuple(content[name])
        content["error"] = content["error"] and ChainFailure(**content["error"])
        return ChainRecord(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # No file, or not a record: the chain is not finished.
        return None


def remove_chain(folder: Path, record: ChainRecord) -> None:
    """Remove the record of a chain and then its files, so that no stale file stays."""
    (folder / (record.stem + RECORD_SUFFIX)).unlink(missing_ok=True)
    for name in record.file_bytes or {}:
        # A record that was edited may name files of other directories.
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)


def file_sizes(folder: Path, names: set[str]) -> dict[str, int]:
    """Return the size of each file in bytes."""
    return {name: (folder / name).stat().st_size for name in sorted(names)}


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
