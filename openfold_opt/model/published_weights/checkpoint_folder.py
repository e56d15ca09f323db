"""Read one checkpoint of a run.

A checkpoint is a folder such as `step_00000040`. It holds the tensors as
torch.distributed.checkpoint writes them (.metadata, *.distcp) and `checkpoint.json`, which
describes the run, the offsets of the parameters in the tensors, and the size and SHA-256 of every
file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from openfold_opt.model.weights import WeightsError
from openfold_opt.protein.shard_format import sha256_of_file

DESCRIPTION = "checkpoint.json"
"""File of a checkpoint that describes it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Content of a checkpoint."""

    step: int
    samples_seen: int
    lddt_ca: float | None
    """Result of the evaluation right after this step, if there was one."""
    facts: Mapping
    """Values that JSON can store."""
    layout: Mapping[str, tuple[int, tuple[int, ...]]]
    """For each parameter, in model order: offset of its first element in a tensor, and shape."""
    tensors: Mapping[str, Tensor]
    """One-dimensional CPU tensors; each has an entry for every element of every parameter."""

    def views(self, name: str) -> dict[str, Tensor]:
        """Return the views of one tensor by parameter name."""
        flat = self.tensors[name]
        return {
            parameter: flat[start : start + torch.Size(shape).numel()].view(shape)
            for parameter, (start, shape) in self.layout.items()
        }


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """Description of a checkpoint, read from its `checkpoint.json`."""

    step: int
    """From the name of the folder."""
    samples_seen: int
    """-1 if the description cannot be read."""
    lddt_ca: float | None
    content: Mapping | None
    """The complete description; None if it cannot be read."""


def read_record(path: Path) -> CheckpointRecord:
    """Read the description. It was complete once, so an unreadable one means damage."""
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
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return CheckpointRecord(step=step, samples_seen=-1, lddt_ca=None, content=None)


def read_checkpoint(path: Path) -> Snapshot:
    """Return the content of a checkpoint folder. Raises WeightsError if it is not complete."""
    # Imported here: it takes 46 MiB, which files of other kinds do not need.
    from openfold_opt.model.published_weights.checkpoint_tensors import read_tensors

    record = read_record(path)
    content = record.content
    if content is None:
        raise WeightsError(
            f"{path} is not a complete checkpoint: its {DESCRIPTION} is missing or unreadable"
        )
    for name, expected in content["files"].items():
        file = path / name
        if not file.is_file():
            raise WeightsError(
                f"checkpoint {path}: the file {name}, which {DESCRIPTION} lists, is missing"
            )
        if file.stat().st_size != expected["size"]:
            raise WeightsError(
                f"{file} has {file.stat().st_size} bytes, expected {expected['size']}: truncated"
            )
        if sha256_of_file(file) != expected["sha256"]:
            raise WeightsError(f"{file} is damaged: its SHA-256 differs from {DESCRIPTION}")
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
