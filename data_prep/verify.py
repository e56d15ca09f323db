"""`python -m data_prep verify DIR`: re-read and hash everything."""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from data_prep.communicator import MpiCommunicator, SerialCommunicator, open_communicator
from data_prep.errors import DataPrepError
from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardFile, ShardIndex
from openfold_opt.protein.verified import verified_checksum


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="re-read and hash a data directory",
        description="Hash every shard and compare with the index. Success is recorded, so that a run can tell without reading again. "
        "`mpiexec -n N python -m data_prep verify ...` spreads the shards over many processes.",
    )
    parser.add_argument("data_dir", type=Path, metavar="DIR", help="a data directory made by convert")
    parser.add_argument(
        "--threads",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="shards hashed at a time by each process (default: its cores, here %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 if all is well, 1 otherwise; the errors name each shard and what to do."""
    if arguments.threads < 1:
        raise DataPrepError(f"--threads is {arguments.threads}, expected at least 1")
    with open_communicator() as communicator:
        index = ShardIndex.load(arguments.data_dir)
        found = communicator.gather_everywhere(_problems(arguments.data_dir, index, communicator, arguments.threads))
        problems = [problem for _, problem in sorted(pair for pairs in found for pair in pairs)]
        if communicator.rank == 0:
            return _conclude(arguments.data_dir, index, problems)
        return 1 if problems else 0


def _problems(
    data_dir: Path, index: ShardIndex, communicator: SerialCommunicator | MpiCommunicator, num_threads: int
) -> list[tuple[int, str]]:
    """What this process finds: (number of the shard, what is wrong with it). Hashing leaves Python's lock, so threads are enough."""
    total_bytes = sum(shard.size_bytes for shard in index.shards)
    interval = 0.5 if sys.stderr.isatty() else 10.0
    problems = []
    with (
        ThreadPoolExecutor(num_threads) as pool,
        tqdm(
            total=total_bytes // communicator.size, desc="verify", unit="B", unit_scale=True, mininterval=interval, disable=communicator.rank != 0
        ) as progress,
    ):
        mine = range(communicator.rank, len(index.shards), communicator.size)
        for number, problem in zip(mine, pool.map(lambda number: find_problem(data_dir, index.shards[number]), mine)):
            progress.update(index.shards[number].size_bytes)
            if problem:
                problems.append((number, problem))
    return problems


def _conclude(data_dir: Path, index: ShardIndex, problems: list[str]) -> int:
    if problems:
        (data_dir / shard_format.VERIFIED_FILE_NAME).unlink(missing_ok=True)
        print(f"data_prep verify: {len(problems)} of {len(index.shards)} shards are bad:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        print("Remove these files and run the same `convert` again: it makes only what is missing.", file=sys.stderr)
        return 1
    total_bytes = sum(shard.size_bytes for shard in index.shards)
    record = {
        "format_version": index.format_version,
        "index_checksum": index.checksum,
        "num_shards": len(index.shards),
        "size_bytes": total_bytes,
    }
    shard_format.write_atomically(data_dir / shard_format.VERIFIED_FILE_NAME, json.dumps(record, indent=1).encode())
    assert verified_checksum(data_dir) == index.checksum
    print(f"{data_dir}: {len(index.shards)} shards, {total_bytes} bytes, {len(index.chains)} chains: all as written")
    return 0


def find_problem(data_dir: Path, shard: ShardFile) -> str | None:
    """What is wrong with a shard; None if nothing is."""
    path = data_dir / shard.name
    if not path.is_file():
        return f"{path} is missing"
    size_bytes = path.stat().st_size
    if size_bytes != shard.size_bytes:
        return f"{path} has {size_bytes} bytes, expected {shard.size_bytes}"
    sha256 = shard_format.sha256_of_file(path)
    if sha256 != shard.sha256:
        return f"{path} has sha256 {sha256}, expected {shard.sha256}"
    return None
