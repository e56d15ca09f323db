"""`python -m data_prep convert`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_prep.communicator import open_communicator
from data_prep.convert.dry_run import describe
from data_prep.convert.pipeline import Communicator, Source, convert, last_words, on_rank_0
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES
from data_prep.convert.raw_source import RawSource
from data_prep.errors import DataPrepError

_MEBIBYTE = 1 << 20


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="raw PDB and OpenProteinSet files -> shards",
        description="Convert raw files to shards. `mpiexec -n N python -m data_prep convert ...` distributes the work and gives the "
        "same bytes; a second run after an interruption goes on where the first one stopped.",
    )
    parser.add_argument("--pdb-mmcif", type=Path, required=True, metavar="DIR", help="holds raw/, clusters-by-entity-40.txt, obsolete.dat")
    parser.add_argument("--open-protein-set", type=Path, required=True, metavar="DIR", help="holds pdb/ and duplicate_pdb_chains.txt")
    add_common_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing; say what would be done, and how long it should take by a sample of the files"
    )
    parser.set_defaults(run=run)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What all sources have in common."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the data directory to make")
    parser.add_argument(
        "--missing-alignments",
        choices=("error", "query"),
        default="error",
        help="a chain without alignment: stop (default), or use its sequence alone",
    )
    parser.add_argument(
        "--shard-size-mib",
        type=int,
        default=DEFAULT_SHARD_SIZE_BYTES // _MEBIBYTE,
        metavar="N",
        help="most of a shard; a process needs about five times as much memory (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, or with --dry-run say what that would be; returns the exit code."""
    source = RawSource(
        pdb_mmcif=arguments.pdb_mmcif,
        open_protein_set=arguments.open_protein_set,
        missing_alignments=arguments.missing_alignments,
        shard_size_bytes=shard_size_bytes(arguments),
    )
    work = _dry_run if arguments.dry_run else convert_and_report
    return run_on_all_ranks(arguments, lambda communicator: work(source, arguments.out, communicator))


def shard_size_bytes(arguments: argparse.Namespace) -> int:
    """DataPrepError if it is no size."""
    if arguments.shard_size_mib < 1:
        raise DataPrepError(f"--shard-size-mib is {arguments.shard_size_mib}, expected at least 1")
    return arguments.shard_size_mib * _MEBIBYTE


def convert_and_report(source: Source, out: Path, communicator: Communicator) -> str:
    """Convert; returns the last words."""
    return last_words(out, convert(source, out, communicator))


def run_on_all_ranks(arguments: argparse.Namespace, work) -> int:
    """work(communicator) on every rank; the first one prints what it returns, or the error that all of them raise."""
    with open_communicator() as communicator:
        try:
            report = work(communicator)
        except DataPrepError as error:
            if communicator.rank == 0:
                print(f"data_prep {arguments.command}: {error}", file=sys.stderr)
            return 1
        if communicator.rank == 0:
            print(report)
    return 0


def _dry_run(source: RawSource, out: Path, communicator: Communicator) -> str:
    return on_rank_0(
        communicator,
        lambda: describe(
            source.plan_structures(),
            open_protein_set=source.open_protein_set,
            out=out,
            shard_size_bytes=source.shard_size_bytes,
            num_processes=communicator.size,
        ),
    )
