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

from openfold_opt.predict.file_names import RECORD_SUFFIX
from openfold_opt.protein.shard_format import write_atomically

SCHEMA_VERSION = 2
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
    """Measured peak on the device (device_memory.PeakMeter)."""
    planned_peak_bytes: int
    """The peak of the memory plan."""
    plddt: tuple[float, ...]
    """One value per residue, 0..100."""
    files: Mapping[str, str]
    """Name of each file by its kind (file_names.py)."""
    relaxation: Mapping[str, object] | None = None
    """What relaxation changed (relaxation/chain_relaxation.py); None if it was not requested."""


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
    seed: int
    """Seed of the run."""
    status: Status
    input_hash: str | None = None
    """Hash of the alignments and template hits; None if they were not read."""
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
    content = _read_content(folder, stem)
    try:
        if content.pop("schema_version") != SCHEMA_VERSION:
            return None
        del content["num_residues"]
        content["models"] = tuple(ModelScores(**_frozen(model)) for model in content["models"])
        content["error"] = content["error"] and ChainFailure(**content["error"])
        return ChainRecord(**_frozen(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not a record: the chain is not finished.
        return None


def other_version(folder: Path, stem: str) -> object | None:
    """Return the schema version of a record of another version; None if there is none."""
    version = _read_content(folder, stem).get("schema_version", SCHEMA_VERSION)
    return None if version == SCHEMA_VERSION else version


def _read_content(folder: Path, stem: str) -> dict:
    """Return the content of a file of JSON; empty if there is no such file."""
    try:
        content = json.loads((folder / (stem + RECORD_SUFFIX)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _frozen(content: Mapping) -> dict:
    """Return fields with tuples in place of lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }


def remove_chain(folder: Path, stem: str) -> None:
    """Remove the record of a chain of any version and then its files, so that no old file stays."""
    content = _read_content(folder, stem)
    if "schema_version" not in content:
        return
    (folder / (stem + RECORD_SUFFIX)).unlink(missing_ok=True)
    for name in content.get("file_bytes") or {}:
        # A record that was edited may name files of other directories.
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
