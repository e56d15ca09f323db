"""What goes into which shard: a pure function of the input files, so that it is the same for any
number of processes."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.findings import Unused
from openfold_opt.protein import shard_format

DEFAULT_SHARD_SIZE_BYTES = 128 << 20
_RULES_VERSION = 2
"""Of the rules by which inputs are read.

A shard that another version made is made anew; raise it when the rules change.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """The inputs of one shard."""

    shard_name: str
    units: tuple[Any, ...]
    expected_bytes: int
    """Rough size, from the sizes of the inputs: how much work it is, too."""
    made_from: str
    """sha256 over names, sizes and times of the inputs and everything else the shard depends on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkState:
    """A finished shard: written next to it, so that an interrupted conversion resumes and the index
    needs no second reading."""

    made_from: str
    sha256: str
    size_bytes: int
    findings: dict[str, list]
    """`Findings.as_json()`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The shards of one kind, and the input that goes into none of them."""

    chunks: tuple[Chunk, ...]
    unused: tuple[Unused, ...] = ()


def make_chunks(
    kind: str,
    units: Sequence[Any],
    *,
    expected_bytes: Callable[[Any], int],
    shard_size_bytes: int,
    depends_on: str,
) -> tuple[Chunk, ...]:
    """Units in their order, in as few shards as the size allows, evenly filled.

    A unit larger than the size has a shard to itself.
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
    """Cuts a sequence of sizes into ranges whose sums are at most `limit` (but for single sizes
    beyond it), and much alike.

    Cutting wherever the next size would go beyond the limit gives the fewest ranges, and a last one
    of any size. So the least limit that gives no more ranges is looked for.
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
    """Relative name, size and modification time: enough to notice that an input was repaired."""
    status = path.stat() if status is None else status
    return [str(path.relative_to(root)), status.st_size, status.st_mtime_ns]


def read_state(data_dir: Path, shard_name: str) -> ChunkState | None:
    """The state of a finished shard that is still there with its size; None otherwise."""
    path = state_path(data_dir, shard_name)
    shard = data_dir / shard_name
    if not path.is_file() or not shard.is_file():
        return None
    try:
        state = ChunkState(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None  # Written by another version, or damaged: the shard is made anew.
    return state if shard.stat().st_size == state.size_bytes else None


def write_state(data_dir: Path, shard_name: str, state: ChunkState) -> None:
    """Record that a shard is finished."""
    contents = json.dumps(dataclasses.asdict(state), indent=1).encode()
    shard_format.write_atomically(state_path(data_dir, shard_name), contents)


def state_path(data_dir: Path, shard_name: str) -> Path:
    """Where the state of a shard is kept."""
    return data_dir / shard_format.STATE_DIR_NAME / f"{shard_name}.json"


def unfinished(chunks: Iterable[Chunk], data_dir: Path) -> list[Chunk]:
    """The chunks whose shard has to be made."""

    def is_done(chunk: Chunk) -> bool:
        state = read_state(data_dir, chunk.shard_name)
        return state is not None and state.made_from == chunk.made_from

    return [chunk for chunk in chunks if not is_done(chunk)]
