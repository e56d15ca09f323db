"""Making the shards of one kind: every process takes the next when it is free, each shard whole or
not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_prep.communicator import MpiCommunicator, SerialCommunicator
from data_prep.convert.findings import Findings
from data_prep.convert.plan import Chunk, ChunkState, unfinished, write_state
from data_prep.errors import DataPrepError
from data_prep.progress import Progress
from openfold_opt.protein import shard_format

MAX_ERRORS_SHOWN = 20

BuildShard = Callable[[Chunk, Findings, Progress], Mapping[str, np.ndarray]]
"""Turns the units of a chunk into datasets.

Rejected units go into the findings. If there is an error, no shard is written.
"""


def make_shards(
    kind: str,
    chunks: Sequence[Chunk],
    build: BuildShard,
    *,
    data_dir: Path,
    communicator: SerialCommunicator | MpiCommunicator,
) -> None:
    """Make every shard that is not there yet.

    DataPrepError with all messages if any unit failed; finished shards stay.
    """
    pending = communicator.broadcast(_prepare(chunks, data_dir) if communicator.rank == 0 else None)
    errors: list[str] = []
    num_handed_out = np.cumsum([0, *(len(chunk.units) for chunk in pending)]).tolist()
    is_silent = communicator.rank != 0 or not pending
    with Progress(num_handed_out[-1], what=kind, unit="unit", is_silent=is_silent) as progress:
        for number in communicator.shared_out(len(pending)):
            # Other processes have finished what comes before this one, or are working on it.
            progress.update(num_handed_out[number] - progress.done)
            if not _make_shard(
                pending[number], build, errors, progress=progress, data_dir=data_dir
            ):
                break
    messages = [
        message for messages in communicator.gather_everywhere(errors) for message in messages
    ]
    if messages:
        raise DataPrepError(report_errors(f"while making {kind}", messages))


def _prepare(chunks: Sequence[Chunk], data_dir: Path) -> list[Chunk]:
    """Which chunks are to be made, the largest first, so that none is left for the end that keeps
    everybody waiting.

    If there are any, the index is removed: a directory with an index is complete.
    """
    pending = sorted(unfinished(chunks, data_dir), key=lambda chunk: -chunk.expected_bytes)
    if pending:
        (data_dir / shard_format.INDEX_FILE_NAME).unlink(missing_ok=True)
    if len(pending) < len(chunks):
        print(
            f"{len(chunks) - len(pending)} of {len(chunks)} shards are finished already",
            file=sys.stderr,
        )
    return pending


def _make_shard(
    chunk: Chunk, build: BuildShard, errors: list[str], *, progress: Progress, data_dir: Path
) -> bool:
    """Build and write one shard, unless one of its inputs cannot be read.

    False if it cannot be written: no other one can.
    """
    findings = Findings()
    arrays = build(chunk, findings, progress)
    if findings.errors:
        errors.extend(findings.errors)
        return True
    contents = shard_format.file_image(arrays, {"num_units": len(chunk.units)})
    path = data_dir / chunk.shard_name
    try:
        sha256 = shard_format.write_atomically(
            path, contents, scratch_dir=data_dir / shard_format.STATE_DIR_NAME
        )
        state = ChunkState(
            made_from=chunk.made_from,
            sha256=sha256,
            size_bytes=len(contents),
            findings=findings.as_json(),
        )
        write_state(data_dir, chunk.shard_name, state)
    except OSError as error:
        reason = error.strerror or error
        errors.append(f"cannot write {path}: {reason}; nothing half-written was left behind")
        return False
    return True


def report_errors(where: str, messages: Sequence[str]) -> str:
    """Several errors as one text of many lines."""
    shown = [f"  {message}" for message in messages[:MAX_ERRORS_SHOWN]]
    if len(messages) > len(shown):
        shown.append(f"  ... and {len(messages) - len(shown)} more")
    first = f"{len(messages)} error{'s' if len(messages) > 1 else ''} {where}:"
    return "\n".join(
        [first, *shown, "Finished shards are kept: repair this and run the same command again."]
    )
