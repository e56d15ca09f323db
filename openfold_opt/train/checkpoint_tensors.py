"""The tensors of a checkpoint as torch.distributed.checkpoint keeps them, which takes 46 MiB to import: for who reads or writes one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

# that one process saves and loads alone is meant so
warnings.filterwarnings(
    "ignore",
    message="torch.distributed is disabled, unavailable or uninitialized",
    category=UserWarning,
)


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """To files in the folder, on the disk when this returns. Raises OSError if that fails."""
    writer = dcp.FileSystemWriter(folder, sync_files=True)
    try:
        # every rank holds the same tensors, so one writes all of them and no other takes part
        dcp.save(dict(tensors), storage_writer=writer, no_dist=True)
    except dcp.CheckpointException as error:
        failure = next((failure for failure, _ in error.failures.values()), error)
        cause = _system_error(failure)
        raise OSError(str(cause)) from cause


def _system_error(error: BaseException) -> BaseException:
    """The error of the operating system behind an exception of the writer, or the exception itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause if cause is not None else error


def read_tensors(folder: Path, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Flat tensors of these sizes by name, float32."""
    tensors = {name: torch.empty(size) for name, size in sizes.items()}
    dcp.load(tensors, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    return tensors
