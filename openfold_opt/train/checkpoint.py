"""Checkpoints on the disk: written whole or not at all, found again, the surplus removed.

A checkpoint is two files, `step_00000040.pt` (torch.save) and `step_00000040.json` (its SHA-256, size
and figures). Each is written under a temporary name, flushed to the disk and renamed, the .json last:
without it a .pt is not a checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from openfold_opt.model.weights import file_sha256

TEMPORARY_SUFFIX = ".tmp"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save and what to keep."""

    closed_division: ClassVar[str] = "implementation"

    every_steps: int = 40
    """Save after every so many optimiser steps; 0 saves at the end of the run only."""
    keep_last: int = 2
    """The newest so many stay: more than one, as the newest may be damaged."""
    keep_best: int = 1
    """Of those saved right after an evaluation, the so many of highest lDDT-Ca stay too."""

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.keep_last < 1 or self.keep_best < 0:
            raise ValueError(f"expected every_steps >= 0, keep_last >= 1, keep_best >= 0; found {self}")


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """The content of the .json beside a checkpoint."""

    step: int
    samples_seen: int
    lddt_ca: float | None
    """Of the evaluation right after this step, if there was one."""
    sha256: str
    size_bytes: int


class CheckpointStore:
    """The checkpoints of one run, in a folder of their own. Only one process may write."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.folder = folder
        self._config = config

    def records(self) -> list[CheckpointRecord]:
        """All complete checkpoints, oldest first."""
        found = [self._read_record(path) for path in sorted(self.folder.glob(f"step_{'[0-9]' * 8}.json"))]
        return sorted(found, key=lambda record: record.step)

    def path(self, step: int) -> Path:
        """Where the weights of a step are, or would be."""
        return self.folder / f"step_{step:08d}.pt"

    def save(self, content: Mapping[str, Any], *, step: int, samples_seen: int, lddt_ca: float | None) -> Path:
        """Write one checkpoint, then remove what is no longer to be kept.

        Raises OSError if the disk is full; what was there before then stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(step)
        try:
            write_atomically(path, lambda temporary: torch.save(dict(content), temporary))
        except (OSError, RuntimeError) as error:  # torch.save says RuntimeError when the disk is full
            free = shutil.disk_usage(self.folder).free
            raise OSError(
                f"cannot write checkpoint {path} ({str(error).splitlines()[0]}); {free:,} bytes are free there. What was saved before "
                "is still there: make room, then start the same command again, which resumes"
            ) from error
        record = CheckpointRecord(
            step=step,
            samples_seen=samples_seen,
            lddt_ca=lddt_ca,
            sha256=file_sha256(path),
            size_bytes=path.stat().st_size,
        )
        text = json.dumps(asdict(record), indent=1) + "\n"
        write_atomically(path.with_suffix(".json"), lambda temporary: temporary.write_text(text))
        self._prune()
        return path

    def load_newest(self, *, warn: Callable[[str], None]) -> tuple[dict[str, Any], Path] | None:
        """Content and path of the newest checkpoint that is whole; None if there never was one.

        A damaged one is passed over with a warning. Raises CheckpointError if all are damaged.
        """
        records = self.records()
        for record in reversed(records):
            path = self.path(record.step)
            try:
                return self._load(path, record), path
            except CheckpointError as error:
                warn(f"{error}; falling back to the checkpoint before it")
        if records:
            raise CheckpointError(
                f"none of the {len(records)} checkpoints in {self.folder} is whole; "
                f"remove {self.folder.parent} to start afresh, or choose another output directory"
            )
        return None

    def remove_temporaries(self) -> None:
        """Remove what a process that was killed while writing left behind."""
        for path in self.folder.glob(f"*{TEMPORARY_SUFFIX}"):
            path.unlink()

    def _load(self, path: Path, record: CheckpointRecord) -> dict[str, Any]:
        if not path.is_file():
            raise CheckpointError(f"checkpoint {path} is missing though {path.stem}.json describes it")
        if record.size_bytes < 0:
            raise CheckpointError(f"the description of checkpoint {path}, {path.stem}.json, cannot be read")
        size = path.stat().st_size
        if size != record.size_bytes:
            raise CheckpointError(f"checkpoint {path} has {size} bytes, expected {record.size_bytes}: truncated")
        if file_sha256(path) != record.sha256:
            raise CheckpointError(f"checkpoint {path} is damaged: its SHA-256 is not that of {path.stem}.json")
        return load_file(path)

    @staticmethod
    def _read_record(path: Path) -> CheckpointRecord:
        """A size of -1 for a description that cannot be read: it was renamed in place, so this is damage."""
        try:
            return CheckpointRecord(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            step = int(path.stem.removeprefix("step_"))
            return CheckpointRecord(step=step, samples_seen=-1, lddt_ca=None, sha256="", size_bytes=-1)

    def _prune(self) -> None:
        records = self.records()
        scored = [record for record in records if record.lddt_ca is not None]
        best = sorted(scored, key=lambda record: (record.lddt_ca, record.step))
        kept = {record.step for record in records[-self._config.keep_last :]}
        if self._config.keep_best:
            kept |= {record.step for record in best[-self._config.keep_best :]}
        for record in records:
            if record.step not in kept:
                # the description goes first: what it names must never be missing
                self.path(record.step).with_suffix(".json").unlink()
                self.path(record.step).unlink(missing_ok=True)


def load_file(path: Path) -> dict[str, Any]:
    """Content of a checkpoint file on the CPU; CheckpointError if it is not one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise nearly anything on bytes that are not theirs
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint that torch.load can read: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict")
    return content


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, flush it to the disk, rename it to `path`."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
