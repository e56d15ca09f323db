"""`python -m data_prep convert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from data_prep.communicator import open_communicator
from data_prep.convert import dry_run, report
from data_prep.convert.pipeline import Communicator, Source, convert, on_rank_0
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES
from data_prep.convert.raw_source import RawSource
from data_prep.errors import DataPrepError

_MEBIBYTE = 1 << 20
EXIT_CODES = (
    "Exit codes: 0 all input was used, or is left out by the benchmark too; 3 the data set is "
    "complete, but faulty input was left out (rejected.csv), or with --strict some input was not "
    "used (unused.csv); 1 error: input that cannot be read, for example, or with --strict faulty "
    "input."
)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="raw PDB and OpenProteinSet files -> shards",
        description="Convert raw files to shards. `mpiexec -n N python -m data_prep convert ...` "
        "distributes the work and gives the same bytes; a second run after an interruption "
        "resumes the first one. What is left out is listed next to the shards: rejected.csv "
        "(entries and chains, with the reason), query_differences.csv (alignments made for a "
        "sequence with other letters), unused.csv (files and folders that were not read). "
        "docs/data_format.md has the layout of the input.",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "--pdb-mmcif",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds raw/ with the entries (.cif.gz or .cif), clusters-by-entity-40.txt, "
        "obsolete.dat",
    )
    parser.add_argument(
        "--open-protein-set",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds pdb/ with one folder of alignments per chain (.a3m, .sto, .hhr), and "
        "duplicate_pdb_chains.txt",
    )
    parser.add_argument(
        "--own-data",
        action="store_true",
        help="entries that are in no database: no table is needed, each entity is a cluster, "
        "alignment files may have any name, ids any length, and a file without _chem_comp.type is "
        "read by the type of its polymers (open division only)",
    )
    add_common_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing; say what would be done, and how long it should take by a sample of "
        "the files",
    )
    parser.set_defaults(run=run)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What all sources have in common."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the data directory to make"
    )
    parser.add_argument(
        "--missing-alignments",
        choices=("error", "query"),
        default="error",
        help="a chain without alignment: stop (default), or use its sequence alone",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at faulty input, which otherwise rejects its entry or chain; exit code 3 if "
        "some input was not used",
    )
    parser.add_argument(
        "--shard-size-mib",
        type=int,
        default=DEFAULT_SHARD_SIZE_BYTES // _MEBIBYTE,
        metavar="N",
        help="largest size of a shard; a process needs about five times as much memory (default: "
        "%(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, or with --dry-run say what that would be; returns the exit code."""
    source = RawSource(
        pdb_mmcif=arguments.pdb_mmcif,
        open_protein_set=arguments.open_protein_set,
        missing_alignments=arguments.missing_alignments,
        shard_size_bytes=shard_size_bytes(arguments),
        own_data=arguments.own_data,
    )
    if arguments.dry_run:
        return run_on_all_ranks(
            arguments, lambda communicator: (_dry_run(source, arguments.out, communicator), 0)
        )
    return convert_and_report(source, arguments)


def shard_size_bytes(arguments: argparse.Namespace) -> int:
    """DataPrepError if it is no size."""
    if arguments.shard_size_mib < 1:
        raise DataPrepError(f"--shard-size-mib is {arguments.shard_size_mib}, expected at least 1")
    return arguments.shard_size_mib * _MEBIBYTE


def convert_and_report(source: Source, arguments: argparse.Namespace) -> int:
    """Convert and print what came of it; returns the exit code."""

    def work(communicator: Communicator) -> tuple[str, int]:
        summary = convert(source, arguments.out, communicator, is_strict=arguments.strict)
        code = report.exit_code(summary, is_strict=arguments.strict)
        return report.describe(arguments.out, summary), code

    return run_on_all_ranks(arguments, work)


def run_on_all_ranks(
    arguments: argparse.Namespace, work: Callable[[Communicator], tuple[str, int]]
) -> int:
    """work(communicator) gives a text and an exit code on every rank.

    The first one prints the text, or the error that all raise.
    """
    with open_communicator() as communicator:
        try:
            text, code = work(communicator)
        except DataPrepError as error:
            if communicator.rank == 0:
                print(f"data_prep {arguments.command}: {error}", file=sys.stderr)
            return 1
        if communicator.rank == 0:
            print(text)
    return code


def _dry_run(source: RawSource, out: Path, communicator: Communicator) -> str:
    return on_rank_0(
        communicator, lambda: dry_run.describe(source, out=out, num_processes=communicator.size)
    )
