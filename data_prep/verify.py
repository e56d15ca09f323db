"""`python -m data_prep verify DIR`: re-read and hash everything."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardFile, ShardIndex
from openfold_opt.protein.verified import verified_checksum


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="re-read and hash a data directory",
        description="Hash every shard and compare with the index. Success is recorded, so that a run can tell without reading again.",
    )
    parser.add_argument("data_dir", type=Path, metavar="DIR", help="a data directory made by convert")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 if all is well, 1 otherwise; the errors name each shard and what to do."""
    data_dir = arguments.data_dir
    index = ShardIndex.load(data_dir)
    total_bytes = sum(shard.size_bytes for shard in index.shards)
    problems = []
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(total=total_bytes, desc="verify", unit="B", unit_scale=True, mininterval=interval) as progress:
        for shard in index.shards:
            problem = find_problem(data_dir, shard)
            if problem:
                problems.append(problem)
            progress.update(shard.size_bytes)
    if problems:
        (data_dir / shard_format.VERIFIED_FILE_NAME).unlink(missing_ok=True)
        print(f"data_prep verify: {len(problems)} of {len(index.shards)} shards are bad:", file=sys.stderr)
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        print("Remove these files and run the same `convert` again: it makes only what is missing.", file=sys.stderr)
        return 1
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
