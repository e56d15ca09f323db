"""Conversion of all shards of one kind, structures or alignments.

Each process takes the next shard when it is free. A shard is written completely or not at all.
"""

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
"""Converts the units of a chunk to datasets.

Rejections and errors are added to the findings. If there is an error, no shard is written.
"""


def make_shards(
    kind: str,
    chunks: Sequence[Chunk],
    build: BuildShard,
    *,
    data_dir: Path,
    communicator: SerialCommunicator | MpiCommunicator,
) -> None:
    """Make all shards that are missing or out of date.

    Raises:
        DataPrepError: units failed; it has all messages. Finished shards are kept.
    """
    pending = communicator.broadcast(_prepare(chunks, data_dir) if communicator.rank == 0 else None)
    errors: list[str] = []
    # Number of units in the chunks before each pending chunk.
    num_assigned = np.cumsum([0, *(len(chunk.units) for chunk in pending)]).tolist()
    is_silent = communicator.rank != 0 or not pending
    with Progress(num_assigned[-1], what=kind, unit="unit", is_silent=is_silent) as progress:
        for number in communicator.distribute(len(pending)):
            # All earlier chunks are finished or being made by other processes.
            progress.update(num_assigned[number] - progress.done)
            if not _make_shard(
                pending[number], build, errors, progress=progress, data_dir=data_dir
            ):
                break
    messages = [message for messages in communicator.all_gather(errors) for message in messages]
    if messages:
        raise DataPrepError(report_errors(f"while making {kind}", messages))


def _prepare(chunks: Sequence[Chunk], data_dir: Path) -> list[Chunk]:
    """Return the chunks to make, the largest first, so that all processes end at a similar time.

    If there are any, the index is removed, because a directory with an index is complete.
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
    """Build one shard and write it, unless one of its inputs cannot be read.

    Returns:
        False if the shard cannot be written. Then no other shard can be written either.
    """
    findings = Findings()
    arrays = build(chunk, findings, progress)
    if findings.errors:
        errors.extend(findings.errors)
        return True
    contents = shard_format.encode_file(arrays, {"num_units": len(chunk.units)})
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
    """Format several errors as one message of several lines."""
    shown = [f"  {message}" for message in messages[:MAX_ERRORS_SHOWN]]
    if len(messages) > len(shown):
        shown.append(f"  ... and {len(messages) - len(shown)} more")
    first = f"{len(messages)} error{'s' if len(messages) > 1 else ''} {where}:"
    return "\n".join(
        [first, *shown, "Finished shards are kept: repair this and run the same command again."]
    )
