"""Conversion of the entries of MLCommons' processed data set to the shards of `convert`."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert.findings import Findings
from data_prep.convert.plan import Chunk, Plan, file_fingerprint, make_chunks
from data_prep.convert.structures import (
    KIND,
    PackedChain,
    expected_bytes_of_entry,
    structure_arrays,
)
from data_prep.convert_mlperf.pickles import pack_entry, read_entries
from data_prep.errors import BrokenFile, CannotRead, DataPrepError, EntryRejected
from data_prep.progress import Progress

LOG_NAME = "dicts_preprocessing_logs.csv"
_LOG_COLUMNS = ("pdb_id", "subdirname", "mmcif_gz_size", "error")
_REASONS = {
    "RuntimeError('legal_polymers are empty')": (
        "no protein: none of the polymers has a monomer of a peptide type"
    )
}
"""Maps an error in the log to the reason that `convert` gives for such an entry."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessedEntry:
    """A row of dicts_preprocessing_logs.csv: a PDB entry that was processed or rejected."""

    pdb_id: str
    path: Path
    """The pickle with the entry."""
    mmcif_gz_bytes: int
    """Size of the raw file of the entry."""
    error: str
    """Why the entry was rejected; empty if it was not."""
    fingerprint: list[Any]
    """JSON values that identify the input; if they change, the shard is built again."""


def plan_structures(processed: Path, *, shard_size_bytes: int) -> Plan:
    """Assign all entries to structure shards.

    The order is that of dicts_preprocessing_logs.csv: by folder and name of the raw files.
    """
    entries = _read_log(processed)
    chunks = make_chunks(
        KIND,
        entries,
        expected_bytes=lambda entry: expected_bytes_of_entry(entry.mmcif_gz_bytes),
        shard_size_bytes=shard_size_bytes,
        # Shards that `convert` made of raw files are not reused.
        depends_on="convert-mlperf",
    )
    return Plan(chunks=chunks)


def _read_log(processed: Path) -> list[ProcessedEntry]:
    path, dicts = processed / LOG_NAME, processed / "dicts"
    for needed in (path, dicts):
        if not needed.exists():
            raise DataPrepError(
                f"{needed} does not exist; expected the processed data set with chains.csv, "
                f"{LOG_NAME}, obsolete.dat and dicts/"
            )
    fingerprints: dict[str, list[Any]] = {}
    entries = []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = [column for column in _LOG_COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise BrokenFile(
                path,
                f"has no column {', '.join(missing)}; expected {', '.join(_LOG_COLUMNS)}",
                line=1,
            )
        for row in rows:
            # One pickle for each folder of the PDB, named after it.
            pickle_path = dicts / row["subdirname"]
            if row["subdirname"] not in fingerprints:
                if not pickle_path.is_file():
                    raise BrokenFile(
                        path,
                        f"names {pickle_path}, which does not exist; fetch it",
                        line=rows.line_num,
                    )
                fingerprints[row["subdirname"]] = file_fingerprint(pickle_path, dicts)
            entries.append(
                ProcessedEntry(
                    pdb_id=row["pdb_id"],
                    path=pickle_path,
                    mmcif_gz_bytes=_integer(path, row["mmcif_gz_size"], line=rows.line_num),
                    error=row["error"],
                    fingerprint=[row["pdb_id"], row["error"], fingerprints[row["subdirname"]]],
                )
            )
    if not entries:
        raise BrokenFile(path, "lists no entries")
    return entries


def _integer(path: Path, text: str, *, line: int) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise BrokenFile(
            path, f"mmcif_gz_size is {text!r}, expected a number of bytes", line=line
        ) from error


def build_structure_shard(
    chunk: Chunk, findings: Findings, progress: Progress
) -> Mapping[str, np.ndarray]:
    """Return the datasets of a structure shard.

    The log lists the rejected entries. Any other entry that cannot be read is therefore damaged,
    and an error.
    """
    chains: list[PackedChain] = []
    for path, units in itertools.groupby(chunk.units, key=lambda unit: unit.path):
        units = list(units)
        try:
            entries = read_entries(path)
        except (BrokenFile, CannotRead) as error:
            findings.add_error(error)
            progress.update(len(units))
            continue
        for unit in units:
            try:
                if unit.error:
                    # The MLCommons reference rejected it, so its file is not at fault.
                    reason = EntryRejected(_REASONS.get(unit.error, unit.error))
                    findings.reject_entry(unit.pdb_id, reason, is_faulty=False)
                else:
                    chains.extend(pack_entry(path, _find(unit, entries)))
            except BrokenFile as error:
                findings.add_error(error)
            progress.update()
    return structure_arrays(
        chains, [(rejection.name, rejection.reason) for rejection in findings.rejected]
    )


def _find(unit: ProcessedEntry, entries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if unit.pdb_id not in entries:
        raise BrokenFile(
            unit.path, f"has no entry {unit.pdb_id}, which {LOG_NAME} lists; fetch both again"
        )
    return entries[unit.pdb_id]
