"""Checkpoints on the disk: written whole or not at all, found again, the surplus removed.

A checkpoint is a folder `step_00000040` with the tensors as torch.distributed.checkpoint writes them (.metadata, *.distcp) and
`checkpoint.json`, which describes them: the run, the places of parameters in the tensors, size and SHA-256 of every file. It is
written under a temporary name, flushed to the disk and renamed: a folder of that name is whole, or was damaged later.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from openfold_opt.model.weights import file_sha256

TEMPORARY_SUFFIX = ".tmp"
DESCRIPTION = "checkpoint.json"
_FORBIDDEN_CLASS = re.compile(r"GLOBAL ([\w.]+)")
"""How torch.load names a class that it refuses to load."""
_NO_CHECKPOINT = "Weights only load failed"
"""How torch.load begins a message about bytes that are no checkpoint; it goes on to advise loading them all the same."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save and what to keep."""

    category: ClassVar[str] = "implementation"

    every_steps: int = 40
    """Save after every so many optimizer steps; 0 saves at the end of the run only."""
    keep_last: int = 2
    """The newest so many stay: more than one, as the newest may be damaged."""
    keep_best: int = 1
    """Of those saved right after an evaluation, the so many of highest lDDT-Ca stay too."""

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.keep_last < 1 or self.keep_best < 0:
            raise ValueError(
                f"expected every_steps >= 0, keep_last >= 1, keep_best >= 0; found {self}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """What a checkpoint holds."""

    step: int
    samples_seen: int
    lddt_ca: float | None
    """Of the evaluation right after this step, if there was one."""
    facts: Mapping[str, Any]
    """JSON values."""
    layout: Mapping[str, tuple[int, tuple[int, ...]]]
    """For each parameter, in the order of the model: place of its first element in a tensor, and shape."""
    tensors: Mapping[str, Tensor]
    """One-dimensional, on the CPU; each holds something of every parameter."""

    def views(self, name: str) -> dict[str, Tensor]:
        """The parts of one tensor by parameter name."""
        flat = self.tensors[name]
        return {
            parameter: flat[start : start + torch.Size(shape).numel()].view(shape)
            for parameter, (start, shape) in self.layout.items()
        }


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """What a checkpoint says of itself."""

    step: int
    samples_seen: int
    lddt_ca: float | None
    content: Mapping[str, Any] | None
    """The whole description; None if it cannot be read."""


class CheckpointStore:
    """The checkpoints of one run, in a folder of their own. Only one process may write."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        # now, not with the first checkpoint, when the clock runs and the interpreter is wanted elsewhere
        importlib.import_module("openfold_opt.train.checkpoint_tensors")
        self.folder = folder
        self._config = config

    def records(self) -> list[CheckpointRecord]:
        """All checkpoints, oldest first."""
        return [_read_record(path) for path in sorted(self.folder.glob(f"step_{'[0-9]' * 8}"))]

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step_{step:08d}"

    def save(
        self, snapshot: Snapshot, *, before_publishing: Callable[[], None] = lambda: None
    ) -> Path:
        """Write one checkpoint, then remove what is no longer to be kept.

        before_publishing: called when everything is on the disk and the checkpoint is about to get its name.
        Raises OSError if the disk is full; what was there before then stays.
        """
        path = self.path(snapshot.step)
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        try:
            _remove(temporary)
            temporary.mkdir(parents=True)
            _write(temporary, snapshot)
            before_publishing()
            _remove(path)
            temporary.rename(path)
            _flush(self.folder)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            free = shutil.disk_usage(_existing(self.folder)).free
            raise OSError(
                f"cannot write checkpoint {path} ({_first_line(error)}); {free:,} bytes are free there. What was saved before "
                "is still there: make room, then start the same command again, which resumes"
            ) from error
        self._prune(snapshot.step)
        return path

    def load_newest(self, *, warn: Callable[[str], None]) -> tuple[Snapshot, Path] | None:
        """The newest checkpoint that is whole, and its path; None if there never was one.

        A damaged one is passed over with a warning. Raises CheckpointError if all are damaged.
        """
        records = self.records()
        for record in reversed(records):
            path = self.path(record.step)
            try:
                return load_checkpoint(path), path
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
            _remove(path)

    def _prune(self, newest: int) -> None:
        """Of those up to the newest, which was just saved; what is beyond it was passed over as damaged, and goes too."""
        everything = self.records()
        records = [record for record in everything if record.step <= newest]
        scored = [record for record in records if record.lddt_ca is not None]
        best = sorted(scored, key=lambda record: (record.lddt_ca, record.step))
        kept = {record.step for record in records[-self._config.keep_last :]}
        if self._config.keep_best:
            kept |= {record.step for record in best[-self._config.keep_best :]}
        for record in everything:
            if record.step not in kept:
                # renamed first: half of a checkpoint must never bear its name
                path = self.path(record.step)
                doomed = path.with_name(path.name + TEMPORARY_SUFFIX)
                path.rename(doomed)
                _remove(doomed)


def _write(folder: Path, snapshot: Snapshot) -> None:
    from openfold_opt.train.checkpoint_tensors import (
        write_tensors,
    )  # 46 MiB that a process without checkpoints does not need

    write_tensors(folder, snapshot.tensors)
    files = {
        path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)}
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


def _read_record(path: Path) -> CheckpointRecord:
    """It got its name when it was whole, so what cannot be read is damage."""
    digits = path.name.removeprefix("step_")
    step = int(digits) if digits.isdigit() else -1
    try:
        content = json.loads((path / DESCRIPTION).read_text())
        return CheckpointRecord(
            step=step,
            samples_seen=content["samples_seen"],
            lddt_ca=content["lddt_ca"],
            content=content,
        )
    except (OSError, ValueError, TypeError, KeyError):
        return CheckpointRecord(step=step, samples_seen=-1, lddt_ca=None, content=None)


def load_checkpoint(path: Path) -> Snapshot:
    """The content of a checkpoint folder; CheckpointError if it is not whole."""
    from openfold_opt.train.checkpoint_tensors import read_tensors  # as in _write

    record = _read_record(path)
    content = record.content
    if content is None:
        raise CheckpointError(
            f"{path} is not a whole checkpoint: its {DESCRIPTION} is missing or cannot be read"
        )
    for name, expected in content["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(
                f"checkpoint {path} lacks its file {name}: it is missing though {DESCRIPTION} describes it"
            )
        if file.stat().st_size != expected["size"]:
            raise CheckpointError(
                f"{file} has {file.stat().st_size} bytes, expected {expected['size']}: truncated"
            )
        if file_sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file} is damaged: its SHA-256 is not that of {DESCRIPTION}")
    tensors = read_tensors(path, content["tensors"])
    layout = {name: (start, tuple(shape)) for name, (start, shape) in content["layout"].items()}
    return Snapshot(
        step=content["step"],
        samples_seen=record.samples_seen,
        lddt_ca=record.lddt_ca,
        facts=content["facts"],
        layout=layout,
        tensors=tensors,
    )


def load_file(path: Path) -> dict[str, Any]:
    """Content of a file of torch.save on the CPU, the published form; CheckpointError if it is not one."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch and pickle raise nearly anything on bytes that are not theirs
        forbidden = _FORBIDDEN_CLASS.search(str(error))
        if forbidden is not None:
            raise CheckpointError(
                f"{path} holds an object of the class {forbidden[1]}, which is not loaded because "
                "such objects can run code; expected only tensors, numbers, strings, lists and "
                "dicts: save the weights alone, without that object"
            ) from error
        raise CheckpointError(
            f"{path} is not a checkpoint that torch.load can read: {_why_not_loaded(path, error)}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a dict")
    return content


def _why_not_loaded(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "it is empty; fetch it again"
    if str(error).startswith(_NO_CHECKPOINT):
        with path.open("rb") as file:
            start = file.read(20)
        return f"it begins with {start!r}; expected a file of torch.save, so fetch it again or save it with torch.save"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
