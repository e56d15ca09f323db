"""Making the shards of one kind: every process takes the next when it is free, each shard whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.communicator import MpiCommunicator, SerialCommunicator
from data_prep.convert.plan import Chunk, ChunkState, unfinished, write_state
from data_prep.errors import DataPrepError
from openfold_opt.protein import shard_format

MAX_ERRORS_SHOWN = 20

BuildShard = Callable[[Chunk, "Errors", tqdm], Mapping[str, np.ndarray]]
"""Turns the units of a chunk into datasets. Units that fail go into the errors, and then the shard is not written."""


class Errors:
    """What went wrong with single units, while the others go on."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, error: Exception) -> None:
        self.messages.append(str(error))


def make_shards(
    kind: str,
    chunks: Sequence[Chunk],
    build: BuildShard,
    *,
    data_dir: Path,
    communicator: SerialCommunicator | MpiCommunicator,
) -> None:
    """Make every shard that is not there yet. DataPrepError with all messages if any unit failed; finished shards stay."""
    pending = communicator.broadcast(_prepare(chunks, data_dir) if communicator.rank == 0 else None)
    errors = Errors()
    num_handed_out = np.cumsum([0, *(len(chunk.units) for chunk in pending)]).tolist()
    interval = 0.5 if sys.stderr.isatty() else 10.0
    is_silent = communicator.rank != 0 or not pending
    with tqdm(total=num_handed_out[-1], desc=kind, unit="unit", mininterval=interval, disable=is_silent) as progress:
        for number in communicator.shared_out(len(pending)):
            # what comes before this one, others have done or are doing
            progress.update(num_handed_out[number] - progress.n)
            if not _make_shard(pending[number], build, errors, progress=progress, data_dir=data_dir):
                break
    messages = [message for messages in communicator.gather_everywhere(errors.messages) for message in messages]
    if messages:
        raise DataPrepError(_report(kind, messages))


def _prepare(chunks: Sequence[Chunk], data_dir: Path) -> list[Chunk]:
    """Which chunks are to be made, the largest first, so that none is left for the end that keeps everybody waiting.

    If there are any, the index is removed: a directory with an index is complete.
    """
    pending = sorted(unfinished(chunks, data_dir), key=lambda chunk: -chunk.expected_bytes)
    if pending:
        (data_dir / shard_format.INDEX_FILE_NAME).unlink(missing_ok=True)
    if len(pending) < len(chunks):
        print(f"{len(chunks) - len(pending)} of {len(chunks)} shards are finished already", file=sys.stderr)
    return pending


def _make_shard(chunk: Chunk, build: BuildShard, errors: Errors, *, progress: tqdm, data_dir: Path) -> bool:
    """Build and write one shard, unless one of its units fails. False if the disk does not take it: then no other one will fit."""
    before = len(errors.messages)
    arrays = build(chunk, errors, progress)
    if len(errors.messages) > before:
        return True
    contents = shard_format.file_image(arrays, {"num_units": len(chunk.units)})
    path = data_dir / chunk.shard_name
    try:
        sha256 = shard_format.write_atomically(path, contents, scratch_dir=data_dir / shard_format.STATE_DIR_NAME)
        state = ChunkState(made_from=chunk.made_from, sha256=sha256, size_bytes=len(contents))
        write_state(data_dir, chunk.shard_name, state)
    except OSError as error:
        errors.add(DataPrepError(f"cannot write {path}: {error.strerror or error}; nothing half-written was left behind"))
        return False
    return True


def _report(kind: str, messages: Sequence[str]) -> str:
    shown = [f"  {message}" for message in messages[:MAX_ERRORS_SHOWN]]
    if len(messages) > len(shown):
        shown.append(f"  ... and {len(messages) - len(shown)} more")
    lines = [f"{len(messages)} errors while making {kind}:", *shown, "Finished shards are kept: mend this and run the same command again."]
    return "\n".join(lines)
