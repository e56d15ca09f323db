"""Assignment of inputs to shards.

It is a pure function of the input files, so it is the same for any number of processes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.findings import Rejection, Unused
from openfold_opt.protein import shard_format

DEFAULT_SHARD_SIZE_BYTES = 128 << 20
_RULES_VERSION = 2
"""Version of the rules for reading inputs.

Increase it when the rules change: shards of earlier versions are then converted again.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """The inputs of one shard."""

    shard_name: str
    units: tuple[Any, ...]
    """Entry files or alignment folders. Each has a `fingerprint`."""
    expected_bytes: int
    """Approximate size, from the sizes of the inputs. It also estimates the amount of work."""
    made_from: str
    """sha256 of names, sizes and times of the inputs and of everything the shard depends on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkState:
    """The state of a finished shard, stored next to it.

    With it an interrupted conversion resumes, and the index is written without reading the shard.
    """

    made_from: str
    sha256: str
    size_bytes: int
    findings: dict[str, list]
    """`Findings.as_json()`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The shards of one kind, the unused input, and chains that are rejected beforehand."""

    chunks: tuple[Chunk, ...]
    unused: tuple[Unused, ...] = ()
    rejected: tuple[Rejection, ...] = ()


def make_chunks(
    kind: str,
    units: Sequence[Any],
    *,
    expected_bytes: Callable[[Any], int],
    shard_size_bytes: int,
    depends_on: str,
) -> tuple[Chunk, ...]:
    """Assign units, in their order, to as few shards as the size allows, evenly filled.

    A unit larger than `shard_size_bytes` gets its own shard. If `depends_on` changes, all shards
    are converted again.
    """
    sizes = [expected_bytes(unit) for unit in units]
    return tuple(
        Chunk(
            shard_name=shard_format.shard_name(kind, number),
            units=tuple(units[group.start : group.stop]),
            expected_bytes=sum(sizes[group.start : group.stop]),
            made_from=_fingerprint(
                [
                    [shard_format.FORMAT_VERSION, _RULES_VERSION, kind, depends_on],
                    [unit.fingerprint for unit in units[group.start : group.stop]],
                ]
            ),
        )
        for number, group in enumerate(cut_evenly(sizes, limit=shard_size_bytes))
    )


def cut_evenly(sizes: Sequence[int], *, limit: int) -> list[range]:
    """Cut a sequence of sizes into ranges with similar sums of at most `limit`.

    A single size above the limit gets its own range. Greedy cutting at the limit gives the fewest
    ranges, but the last range may be small. A bisection therefore finds the smallest limit that
    gives the same number of ranges.
    """
    fewest = len(_cut_at(sizes, limit))
    low, high = 0, limit
    while high - low > max(limit // 1024, 1):
        middle = (low + high) // 2
        low, high = (low, middle) if len(_cut_at(sizes, middle)) <= fewest else (middle, high)
    return _cut_at(sizes, high)


def _cut_at(sizes: Sequence[int], limit: int) -> list[range]:
    starts, filled = [], 0
    for number, size in enumerate(sizes):
        if not starts or filled + size > limit:
            starts.append(number)
            filled = 0
        filled += size
    return [range(start, stop) for start, stop in itertools.pairwise([*starts, len(sizes)])]


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def file_fingerprint(path: Path, root: Path, status: os.stat_result | None = None) -> list[Any]:
    """Return the relative name, size and modification time of a file.

    They change when an input file is repaired.
    """
    status = path.stat() if status is None else status
    return [str(path.relative_to(root)), status.st_size, status.st_mtime_ns]


def read_state(data_dir: Path, shard_name: str) -> ChunkState | None:
    """Return the state of a finished shard; None if the shard is missing or has another size."""
    path = state_path(data_dir, shard_name)
    shard = data_dir / shard_name
    if not path.is_file() or not shard.is_file():
        return None
    try:
        state = ChunkState(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None  # The state is damaged or of another version: the shard is made again.
    return state if shard.stat().st_size == state.size_bytes else None


def write_state(data_dir: Path, shard_name: str, state: ChunkState) -> None:
    """Record that a shard is finished."""
    contents = json.dumps(dataclasses.asdict(state), indent=1).encode()
    shard_format.write_atomically(state_path(data_dir, shard_name), contents)


def state_path(data_dir: Path, shard_name: str) -> Path:
    """Return the path of the state file of a shard."""
    return data_dir / shard_format.STATE_DIR_NAME / f"{shard_name}.json"


def unfinished(chunks: Iterable[Chunk], data_dir: Path) -> list[Chunk]:
    """Return the chunks whose shards are missing or out of date."""

    def is_done(chunk: Chunk) -> bool:
        state = read_state(data_dir, chunk.shard_name)
        return state is not None and state.made_from == chunk.made_from

    return [chunk for chunk in chunks if not is_done(chunk)]
