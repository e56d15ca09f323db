"""Read and write the tensors of a checkpoint with torch.distributed.checkpoint.

This is a separate module because torch.distributed.checkpoint takes 46 MiB to import.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

# A single process saves and loads on purpose.
warnings.filterwarnings(
    "ignore",
    message="torch.distributed is disabled, unavailable or uninitialized",
    category=UserWarning,
)


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to files in the folder and flush them to the disk. Raises OSError."""
    writer = dcp.FileSystemWriter(folder, sync_files=True)
    try:
        # All ranks hold the same tensors, so one rank writes them without the others.
        dcp.save(dict(tensors), storage_writer=writer, no_dist=True)
    except dcp.CheckpointException as error:
        failure = next((failure for failure, _ in error.failures.values()), error)
        cause = _system_error(failure)
        raise OSError(str(cause)) from cause


def _system_error(error: BaseException) -> BaseException:
    """Return the OSError that caused an exception of the writer, or the exception itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause if cause is not None else error


def read_tensors(folder: Path, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Read flat float32 tensors by name. sizes: number of elements of each."""
    tensors = {name: torch.empty(size) for name, size in sizes.items()}
    dcp.load(tensors, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    return tensors
