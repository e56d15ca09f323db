"""The command `python -m data_prep convert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from data_prep.convert import dry_run, report
from data_prep.convert.pipeline import Communicator, Source, convert, on_rank_0
from data_prep.convert.plan import DEFAULT_SHARD_SIZE_BYTES
from data_prep.convert.raw_source import RawSource
from data_prep.errors import DataPrepError
from data_prep.launch import open_communicator

_MEBIBYTE = 1 << 20
EXIT_CODES = (
    "Exit codes: 0 success: all skipped input is input that the benchmark skips too; 3 the data "
    "set is complete, but faulty input was rejected (rejected.csv), or with --strict some input "
    "was not used (unused.csv); 1 error, for example input that cannot be read, or with --strict "
    "faulty input."
)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "convert",
        help="raw PDB and OpenProteinSet files -> shards",
        description="Convert raw files to shards. `mpiexec -n N python -m data_prep convert ...` "
        "distributes the work and gives the same bytes; a second run after an interruption "
        "resumes the first one. Tables next to the shards list the input that was skipped or "
        "differs: rejected.csv (entries and chains, with the reason), query_differences.csv "
        "(alignments of a sequence with other letters), unused.csv (files and folders that were "
        "not read). docs/data_format.md describes the layout of the input.",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "--pdb-mmcif",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with raw/ (entries as .cif.gz or .cif), clusters-by-entity-40.txt and "
        "obsolete.dat",
    )
    parser.add_argument(
        "--open-protein-set",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with pdb/ (one folder of alignments per chain: .a3m, .sto, .hhr) and "
        "duplicate_pdb_chains.txt",
    )
    parser.add_argument(
        "--own-data",
        action="store_true",
        help="for entries that are in no database (open division only): no table is needed, each "
        "entity is a cluster, alignment files may have any name, ids any length, and in a file "
        "without _chem_comp.type proteins are found by _entity_poly.type",
    )
    add_common_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing; print what would be done, with a time estimated from a sample of the "
        "files",
    )
    parser.set_defaults(run=run)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all sources have in common."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the data directory to write"
    )
    parser.add_argument(
        "--missing-alignments",
        choices=("error", "query"),
        default="error",
        help="a chain without an alignment is an error (default), or its sequence alone is used",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="treat faulty input as an error instead of rejecting its entry or chain; exit code 3 "
        "if some input was not used",
    )
    parser.add_argument(
        "--shard-size-mib",
        type=int,
        default=DEFAULT_SHARD_SIZE_BYTES // _MEBIBYTE,
        metavar="N",
        help="maximum shard size in MiB; peak memory of a process is about 5x (default: "
        "%(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, or with --dry-run describe the conversion, and return the exit code."""
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
    """Return --shard-size-mib in bytes.

    Raises:
        DataPrepError: the size is not positive.
    """
    if arguments.shard_size_mib < 1:
        raise DataPrepError(f"--shard-size-mib is {arguments.shard_size_mib}, expected at least 1")
    return arguments.shard_size_mib * _MEBIBYTE


def convert_and_report(source: Source, arguments: argparse.Namespace) -> int:
    """Convert, print the report and return the exit code."""

    def work(communicator: Communicator) -> tuple[str, int]:
        summary = convert(source, arguments.out, communicator, is_strict=arguments.strict)
        code = report.exit_code(summary, is_strict=arguments.strict)
        return report.describe(arguments.out, summary), code

    return run_on_all_ranks(arguments, work)


def run_on_all_ranks(
    arguments: argparse.Namespace, work: Callable[[Communicator], tuple[str, int]]
) -> int:
    """Run `work` on every rank and return the exit code.

    Args:
        work: returns a text and an exit code, the same on every rank, or raises DataPrepError on
            every rank. Rank 0 prints the text or the error.
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
