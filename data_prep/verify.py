"""The command `python -m data_prep verify DIR`: hash all shards of a data directory."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.communicator import MpiCommunicator, SerialCommunicator
from data_prep.errors import DataPrepError, describe_error
from data_prep.launch import open_communicator
from data_prep.progress import Progress
from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardFile, ShardIndex, verified_checksum

Communicator = SerialCommunicator | MpiCommunicator


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="hash all shards of a data directory",
        description="Hash every shard and compare with the index. Success is recorded, so that a "
        "run need not read the shards to check them. `mpiexec -n N python -m data_prep verify ...` "
        "distributes the shards over several processes.",
    )
    parser.add_argument(
        "data_dir", type=Path, metavar="DIR", help="a data directory made by convert"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="shards hashed at a time by each process (default: its cores, here %(default)s)",
    )
    parser.set_defaults(run=run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with a shard."""

    number: int
    """Position of the shard in the index."""
    text: str
    is_damage: bool
    """False: the file cannot be read now and may be intact."""


def run(arguments: argparse.Namespace) -> int:
    """Verify the shards and return the exit code: 0 if all are intact, 1 otherwise."""
    if arguments.threads < 1:
        raise DataPrepError(f"--threads is {arguments.threads}, expected at least 1")
    with open_communicator() as communicator:
        index = ShardIndex.load(arguments.data_dir)
        gathered = communicator.all_gather(
            _problems(arguments.data_dir, index, communicator, arguments.threads)
        )
        problems = sorted(
            (problem for part in gathered for problem in part), key=lambda problem: problem.number
        )
        if communicator.rank == 0:
            return _conclude(arguments.data_dir, index, problems)
        return 1 if problems else 0


def _problems(
    data_dir: Path, index: ShardIndex, communicator: Communicator, num_threads: int
) -> list[Problem]:
    """Hash the shards of this rank and return their problems.

    Hashing releases the GIL, so threads run in parallel.
    """
    total_bytes = sum(shard.size_bytes for shard in index.shards)
    problems = []
    with (
        ThreadPoolExecutor(num_threads) as pool,
        Progress(
            total_bytes // communicator.size,
            what="verify",
            unit="B",
            is_silent=communicator.rank != 0,
        ) as progress,
    ):
        own_numbers = range(communicator.rank, len(index.shards), communicator.size)
        for number, problem in zip(
            own_numbers,
            pool.map(lambda number: find_problem(data_dir, index.shards, number), own_numbers),
        ):
            progress.update(index.shards[number].size_bytes)
            if problem:
                problems.append(problem)
    return problems


def _conclude(data_dir: Path, index: ShardIndex, problems: list[Problem]) -> int:
    """Print the result, write or remove verified.json, and return the exit code."""
    if problems:
        _report(index, problems)
        try:
            (data_dir / shard_format.VERIFIED_FILE_NAME).unlink(missing_ok=True)
        except OSError as error:
            print(
                "The record of an earlier verification could not be removed: "
                f"{describe_error(error)}",
                file=sys.stderr,
            )
        return 1
    total_bytes = sum(shard.size_bytes for shard in index.shards)
    print(
        f"{data_dir}: {len(index.shards)} shards, {total_bytes} bytes, {len(index.chains)} chains: "
        "all as written"
    )
    record = {
        "format_version": index.format_version,
        "index_checksum": index.checksum,
        "num_shards": len(index.shards),
        "size_bytes": total_bytes,
    }
    if verified_checksum(data_dir) == index.checksum:
        return 0
    try:
        shard_format.write_atomically(
            data_dir / shard_format.VERIFIED_FILE_NAME, json.dumps(record, indent=1).encode()
        )
    except OSError as error:
        print(
            "The shards are intact, but the record of it could not be written: "
            f"{error.strerror} ({data_dir}). A run will ask for verification again; repeat the "
            "command where the folder can be written.",
            file=sys.stderr,
        )
    return 0


def _report(index: ShardIndex, problems: list[Problem]) -> None:
    damaged = [problem for problem in problems if problem.is_damage]
    unreadable = [problem for problem in problems if not problem.is_damage]
    convert_again = (
        "Remove these files and run the same `convert` again: it makes only what is missing."
    )
    verify_again = "They need not be damaged: correct this and verify again."
    for group, state, advice in (
        (damaged, "are bad", convert_again),
        (unreadable, "cannot be read", verify_again),
    ):
        if group:
            first = f"data_prep verify: {len(group)} of {len(index.shards)} shards {state}:"
            lines = [first, *(f"  {problem.text}" for problem in group), advice]
            print("\n".join(lines), file=sys.stderr)


def find_problem(data_dir: Path, shards: Sequence[ShardFile], number: int) -> Problem | None:
    """Return the problem with a shard, or None if it is intact."""
    shard = shards[number]
    path = data_dir / shard.name
    try:
        text = _compare(path, shard)
    except FileNotFoundError:
        text = f"{path} is missing"
    except OSError as error:
        return Problem(number=number, text=f"{path}: {error.strerror}", is_damage=False)
    return None if text is None else Problem(number=number, text=text, is_damage=True)


def _compare(path: Path, shard: ShardFile) -> str | None:
    size_bytes = path.stat().st_size
    if size_bytes != shard.size_bytes:
        return f"{path} has {size_bytes} bytes, expected {shard.size_bytes}"
    sha256 = shard_format.sha256_of_file(path)
    if sha256 != shard.sha256:
        return f"{path} has sha256 {sha256}, expected {shard.sha256}"
    return None
