"""The command `python -m data_prep distill`."""

from __future__ import annotations

import argparse
import datetime
from collections import Counter
from pathlib import Path

from data_prep.convert import report
from data_prep.convert.build_index import Summary
from data_prep.convert.command import (
    add_common_arguments,
    run_on_all_ranks,
    shard_size_bytes,
)
from data_prep.convert.findings import Rejection
from data_prep.convert.pipeline import Communicator, convert
from data_prep.distill.distillation_source import METHOD, DistillationSource
from data_prep.distill.filters import Filters, ValidationChains
from data_prep.errors import DataPrepError
from openfold_opt.protein import shard_format
from openfold_opt.protein.index import ShardIndex

_MEBIBYTE = 1 << 20
_EXIT_CODES = (
    "Exit codes: 0 success: only filters rejected chains; 3 the data set is complete, but faulty "
    "input was rejected (rejected.csv), or with --strict a chain has no structure (unused.csv); 1 "
    "error: no chain is left, input cannot be read, or with --strict faulty input."
)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "distill",
        help="predicted structures -> shards for self-distillation",
        description="Convert predicted structures and their alignments to a distillation set, from "
        "which `python -m benchmark run --distillation-data-dir` draws training samples. Chains "
        "are rejected by the filters below, and if another chain with the same sequence has more "
        "bytes of alignments; rejected.csv lists them. Distilled chains have no resolution, so "
        "that the losses of the confidence heads leave them out, and no templates. Runs under "
        "`mpiexec -n N`; a second run after an interruption resumes the first one. "
        "docs/own_data.md has an example.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="output directories of `python -m openfold_opt.predict` (the best structure of each "
        "finished chain), other directories of .cif or .cif.gz files, or such files",
    )
    parser.add_argument(
        "--alignments",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="alignments of the chains, in the layouts that prediction reads",
    )
    _add_filters(parser)
    parser.add_argument(
        "--validation-data-dir",
        type=Path,
        metavar="DIR",
        help="shards of validation chains only: reject chains with the id or the sequence of one "
        "of them. Training refuses such chains in any case",
    )
    parser.add_argument(
        "--clusters",
        type=Path,
        metavar="FILE",
        help="table of clusters: one cluster of chain ids per line, as in the table of the "
        "training data, so that chains of held-out clusters are found (default: each chain is a "
        "cluster)",
    )
    parser.add_argument(
        "--release-date",
        metavar="DATE",
        help="ISO date of all chains; training uses distilled chains of any date (default: the "
        "day, in UTC, on which the structure file was changed)",
    )
    add_common_arguments(parser)
    parser.set_defaults(run=run)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    defaults = Filters()
    parser.add_argument(
        "--min-plddt",
        type=float,
        default=defaults.min_plddt,
        metavar="X",
        help="mask residues with a pLDDT of at most X; a chain without any other residue is "
        "rejected. Source: OpenFold (default: %(default)s; 0: off)",
    )
    parser.add_argument(
        "--min-length",
        type=int,
        default=defaults.min_length,
        metavar="N",
        help="reject chains of fewer residues. Source: AlphaFold2 supplement 1.3 (default: "
        "%(default)s; 0: off)",
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=defaults.max_length,
        metavar="N",
        help="reject chains of more residues. Source: AlphaFold2 supplement 1.3 (default: "
        "%(default)s; 0: off)",
    )
    parser.add_argument(
        "--min-msa-rows",
        type=int,
        default=defaults.min_msa_rows,
        metavar="N",
        help="reject chains whose alignment has fewer rows, without duplicates. Source: AlphaFold2 "
        "supplement 1.3 (default: %(default)s; 0: off)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the distillation set and return the exit code."""
    _refuse_other_data(arguments.out)
    source = DistillationSource(
        predictions=tuple(arguments.predictions),
        alignments=tuple(arguments.alignments),
        filters=Filters(
            min_plddt=arguments.min_plddt,
            min_length=arguments.min_length,
            max_length=arguments.max_length,
            min_msa_rows=arguments.min_msa_rows,
        ),
        release_date=_iso_date(arguments.release_date),
        clusters=arguments.clusters,
        validation=(
            None
            if arguments.validation_data_dir is None
            else ValidationChains.load(arguments.validation_data_dir)
        ),
        missing_alignments=arguments.missing_alignments,
        shard_size_bytes=shard_size_bytes(arguments),
    )

    def work(communicator: Communicator) -> tuple[str, int]:
        summary = convert(source, arguments.out, communicator, is_strict=arguments.strict)
        code = report.exit_code(summary, is_strict=arguments.strict)
        return describe(arguments.out, summary), code

    return run_on_all_ranks(arguments, work)


def describe(out: Path, summary: Summary) -> str:
    """Return the report in several lines: the chains, and the rejected ones by reason."""
    lines = [
        f"{out}: {summary.num_chains:,} of {summary.num_entries:,} predicted chains, "
        f"{summary.num_shards} shards, {summary.size_bytes / _MEBIBYTE:.1f} MiB"
    ]
    if summary.num_query_alone:
        lines.append(f"{summary.num_query_alone:,} chains have their sequence as their only row")
    if summary.rejected:
        listing = out / shard_format.REJECTED_FILE_NAME
        lines.append(f"rejected chains: {len(summary.rejected):,}, listed in {listing}:")
        counts = Counter(_kind(rejection) for rejection in summary.rejected)
        lines.extend(f"  {count:,} x {reason}" for reason, count in counts.most_common())
    num_faulty = sum(rejection.is_faulty for rejection in summary.rejected)
    if num_faulty:
        lines.append(
            f"{num_faulty:,} of these for faulty input (exit code {report.EXIT_INPUT}); repair it "
            "and run the same command again"
        )
    if summary.unused:
        lines.append(f"chains without a structure: {len(summary.unused):,}, listed in unused.csv")
    return "\n".join(lines)


def _kind(rejection: Rejection) -> str:
    """Return the kind of a reason. Reasons of faulty alignments start with the path of a file."""
    if rejection.is_chain and rejection.is_faulty:
        return "faulty alignment"
    return rejection.reason.split(":")[0]


def _refuse_other_data(out: Path) -> None:
    """Raise DataPrepError if the data directory has chains of another source."""
    if not (out / shard_format.INDEX_FILE_NAME).is_file():
        return
    others = [chain for chain in ShardIndex.load(out).chains if chain.method != METHOD]
    if others:
        raise DataPrepError(
            f"--out {out} holds another data set, with chains such as {others[0].chain_id}; name "
            "another folder"
        )


def _iso_date(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise DataPrepError(
            f"--release-date is {text!r}, expected a date such as 2021-09-16"
        ) from error
