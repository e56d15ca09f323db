"""`score`: compare predicted structures with true structures."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmark.command_line import (
    BenchmarkError,
    check_json_option,
    check_output_option,
    describe_error,
)
from benchmark.replace_file import replace_text
from openfold_opt.predict.comparison.compare_files import (
    ComparedChain,
    FailedComparison,
    chain_values,
    compare_files,
    residue_values,
    scores_document,
)
from openfold_opt.predict.comparison.structure_files import TrueStructures, list_predictions

DESCRIPTION = """\
Compare predicted with true structures: lDDT-Ca, lDDT of all heavy atoms, TM-score, GDT-TS and the
RMSD of the CA atoms. Residues are matched by sequence, so that numbering, missing residues and tags
do not matter. docs/scores.md has the definitions.

PREDICTION and TRUE are mmCIF, ModelCIF or PDB files, also with .gz, or directories of them. In
directories NAME.cif belongs to NAME.cif, or to chain A of 1abc.cif if NAME is 1abc_A. In an output
directory of openfold_opt.predict the best structure of each chain is compared, without relaxation;
name a file to compare another one. A single TRUE is compared with all chains of PREDICTION that
have its sequence.
"""
EPILOG = """\
exit codes: 0 all predicted chains have scores, 1 some have none (the reasons are printed), 2 wrong
arguments
"""
SOME_FAILED_EXIT_CODE = 1
_HEADINGS = {
    "lddt_ca": "lDDT-Ca",
    "lddt_all_atom": "lDDT",
    "tm_score": "TM-score",
    "gdt_ts": "GDT-TS",
    "rmsd_ca": "RMSD",
    "ca_distance": "CA distance",
}


def add_parser(subparsers) -> None:
    """Declare the command line of `score`."""
    parser = subparsers.add_parser(
        "score",
        help="compare predicted structures with true structures",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "prediction", type=Path, metavar="PREDICTION", help="predicted structure, or directory"
    )
    parser.add_argument("true", type=Path, metavar="TRUE", help="true structure, or directory")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all scores, also those of every residue",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write a row per chain; with --per-residue, a row per residue",
    )
    parser.add_argument(
        "--per-residue", action="store_true", help="print the scores of every residue, too"
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print a table, and return the exit code."""
    check_json_option(args.json)
    check_output_option("--csv", args.csv)
    try:
        predictions = list_predictions(args.prediction)
        truths = TrueStructures([args.true], on_warning=_warn)
    except (ValueError, OSError) as error:
        raise BenchmarkError(describe_error(error)) from error
    compared: list[ComparedChain] = []
    failed: list[FailedComparison] = []
    for result in compare_files(predictions, truths, on_warning=_warn):
        if isinstance(result, ComparedChain):
            compared.append(result)
        else:
            failed.append(result)
    _print_chains(compared)
    if args.per_residue:
        for chain in compared:
            _print_residues(chain)
    for failure in failed:
        print(f"FAILED {failure.key}: {failure.message}", file=sys.stderr)
    if args.json is not None:
        replace_text(args.json, json.dumps(scores_document(compared, failed)))
    if args.csv is not None:
        replace_text(args.csv, _csv_text(compared, per_residue=args.per_residue))
    return SOME_FAILED_EXIT_CODE if failed else 0


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _print_chains(compared: Sequence[ComparedChain]) -> None:
    """Print a line per chain, and the mean of each score over the chains."""
    if not compared:
        return
    headings = ["prediction", "true chain", "matched", "identity"]
    rows = []
    for chain in compared:
        scores = chain.scores
        values = [_format(name, value) for name, value in chain_values(scores).items()]
        truth = f"{chain.truth_file.name} {scores.match.true.name}"
        matched = f"{scores.num_matched}/{scores.num_true}"
        rows.append([chain.key, truth, matched, f"{scores.match.identity:.0%}", *values])
    names = list(chain_values(compared[0].scores))
    if len(compared) > 1:
        means = [
            np.mean([chain_values(chain.scores)[name] for chain in compared]) for name in names
        ]
        values = [_format(name, mean) for name, mean in zip(names, means)]
        rows.append([f"mean of {len(compared)} chains", "", "", "", *values])
    _print_table([headings + [_HEADINGS[name] for name in names], *rows], num_texts=2)


def _print_residues(chain: ComparedChain) -> None:
    print(f"\n{chain.key}")
    names = list(residue_values(chain.scores))
    rows = [
        [str(number), letter, *(_format(name, value) for name, value in zip(names, values))]
        for number, letter, *values in _residue_rows(chain)
    ]
    _print_table([["residue", "type", *(_HEADINGS[name] for name in names)], *rows], num_texts=0)


def _residue_rows(chain: ComparedChain) -> Iterable[tuple]:
    """Return number from 1, type and scores of every residue of the prediction."""
    numbers = range(1, chain.predicted.num_residues + 1)
    return zip(numbers, chain.predicted.sequence, *residue_values(chain.scores).values())


def _format(name: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    is_length = name in ("rmsd_ca", "ca_distance")
    return f"{value:.2f}" if is_length else f"{value:.4f}"


def _print_table(rows: Sequence[Sequence[str]], *, num_texts: int) -> None:
    """Print aligned columns. num_texts: number of columns that are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [
            cell.ljust(width) if column < num_texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def _csv_text(compared: Sequence[ComparedChain], *, per_residue: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counts = ["residue", "type"] if per_residue else ["identity", "num_true", "num_matched"]
    values_of = residue_values if per_residue else chain_values
    names = list(values_of(compared[0].scores)) if compared else []
    writer.writerow(["prediction", "truth", "truth_chain", *counts, *names])
    for chain in compared:
        scores = chain.scores
        start = [chain.key, chain.truth_file.name, scores.match.true.name]
        if per_residue:
            for number, letter, *values in _residue_rows(chain):
                cells = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
                writer.writerow([*start, number, letter, *cells])
        else:
            counted = [f"{scores.match.identity:.4f}", scores.num_true, scores.num_matched]
            values = [f"{value:.6f}" for value in chain_values(scores).values()]
            writer.writerow([*start, *counted, *values])
    return text.getvalue()
