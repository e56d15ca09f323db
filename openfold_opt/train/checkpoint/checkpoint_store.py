"""Write, find and prune the checkpoints of a run.

openfold_opt.model.published_weights.checkpoint_folder describes and reads the folder of a
checkpoint. A checkpoint is written under a temporary name, flushed to the disk and then renamed, so
a folder with a final name is complete unless it was damaged later.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from openfold_opt.model.published_weights.checkpoint_folder import (
    DESCRIPTION,
    CheckpointRecord,
    Snapshot,
    read_checkpoint,
    read_record,
)
from openfold_opt.model.weights import WeightsError
from openfold_opt.protein.shard_format import sha256_of_file
from openfold_opt.train.errors import CheckpointError

TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save checkpoints and which ones to keep."""

    category: ClassVar[str] = "implementation"

    every_steps: int = 40
    """Optimizer steps between checkpoints; 0: save only at the end of the run."""
    keep_last: int = 2
    """Number of newest checkpoints to keep; more than one, since the newest may be damaged."""
    keep_best: int = 1
    """Number of checkpoints with the highest lDDT-Ca to keep, of those saved at an evaluation."""

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.keep_last < 1 or self.keep_best < 0:
            raise ValueError(
                f"expected every_steps >= 0, keep_last >= 1, keep_best >= 0; found {self}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundCheckpoint:
    """A complete checkpoint that was read from the disk."""

    snapshot: Snapshot
    path: Path


class CheckpointStore:
    """The folder with the checkpoints of one run. Only one process may write to it."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        # Import now, so that the first checkpoint does not delay training.
        importlib.import_module("openfold_opt.model.published_weights.checkpoint_tensors")
        self.folder = folder
        self._config = config

    def records(self) -> list[CheckpointRecord]:
        """Return the records of all checkpoints, oldest first."""
        return [read_record(path) for path in sorted(self.folder.glob(f"step_{'[0-9]' * 8}"))]

    def path(self, step: int) -> Path:
        """Return the path of the checkpoint of a step, whether or not it exists."""
        return self.folder / f"step_{step:08d}"

    def save(self, snapshot: Snapshot, *, before_rename: Callable[[], None] = lambda: None) -> Path:
        """Write one checkpoint, then remove those that are no longer kept. Return its path.

        before_rename: called when all files are on the disk, before the checkpoint gets its
        final name. Raises OSError if the disk is full; earlier checkpoints then stay.
        """
        path = self.path(snapshot.step)
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        try:
            _remove(temporary)
            temporary.mkdir(parents=True)
            _write(temporary, snapshot)
            before_rename()
            _remove(path)
            temporary.rename(path)
            _flush(self.folder)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(_nearest_existing(self.folder)).free
            raise OSError(
                f"cannot write checkpoint {path} ({_first_line(error)}); {free:,} bytes are free "
                "there. Earlier checkpoints are complete: free some space, then run the same "
                "command again, which resumes"
            ) from error
        self._prune(snapshot.step)
        return path

    def load_newest(self, *, warn: Callable[[str], None]) -> FoundCheckpoint | None:
        """Return the newest complete checkpoint; None if there are no checkpoints.

        A damaged checkpoint is skipped with a warning. Raises CheckpointError if all are damaged.
        """
        records = self.records()
        for record in reversed(records):
            path = self.path(record.step)
            try:
                return FoundCheckpoint(snapshot=load_checkpoint(path), path=path)
            except CheckpointError as error:
                warn(f"{error}; falling back to the previous checkpoint")
        if records:
            raise CheckpointError(
                f"none of the {len(records)} checkpoints in {self.folder} is complete; remove "
                f"{self.folder.parent} to start a new run, or choose another output directory"
            )
        return None

    def remove_temporaries(self) -> None:
        """Remove the files of a process that was killed while it wrote a checkpoint."""
        for path in self.folder.glob(f"*{TEMPORARY_SUFFIX}"):
            _remove(path)

    def _prune(self, newest: int) -> None:
        """Remove checkpoints that are not kept. newest: step of the one that was just saved.

        Checkpoints of later steps are damaged, since the run did not resume from them; they are
        removed, too.
        """
        all_records = self.records()
        records = [record for record in all_records if record.step <= newest]
        scored = [record for record in records if record.lddt_ca is not None]
        best = sorted(scored, key=lambda record: (record.lddt_ca, record.step))
        kept = {record.step for record in records[-self._config.keep_last :]}
        if self._config.keep_best:
            kept |= {record.step for record in best[-self._config.keep_best :]}
        for record in all_records:
            if record.step not in kept:
                # Rename first: a partly removed checkpoint must not have a final name.
                path = self.path(record.step)
                temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
                path.rename(temporary)
                _remove(temporary)


def _write(folder: Path, snapshot: Snapshot) -> None:
    """Write tensors and description to a folder, and flush them to the disk."""
    # Imported here: it takes 46 MiB, which a process without checkpoints does not need.
    from openfold_opt.model.published_weights.checkpoint_tensors import write_tensors

    write_tensors(folder, snapshot.tensors)
    files = {
        path.name: {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
        for path in sorted(folder.iterdir())
    }
    description = {
        "step": snapshot.step,
        "samples_seen": snapshot.samples_seen,
        "lddt_ca": snapshot.lddt_ca,
        "facts": snapshot.facts,
        "files": files,
        "tensors": {name: tensor.numel() for name, tensor in snapshot.tensors.items()},
        "layout": {name: [start, list(shape)] for name, (start, shape) in snapshot.layout.items()},
    }
    path = folder / DESCRIPTION
    path.write_text(json.dumps(description, indent=1) + "\n")
    _flush(path)
    _flush(folder)


def load_checkpoint(path: Path) -> Snapshot:
    """Return the content of a checkpoint folder. Raises CheckpointError if it is not complete."""
    try:
        return read_checkpoint(path)
    except WeightsError as error:
        raise CheckpointError(str(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _nearest_existing(path: Path) -> Path:
    """Return the path, or else the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
