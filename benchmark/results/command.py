"""`summarize`: tables and plots of MLPerf HPC OpenFold logs of any submitter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.replace_file import replace_text
from benchmark.results.files import as_csv, as_json
from benchmark.results.gather import Gathered, ResultSet, gather
from benchmark.results.metrics import Metrics, compute_metrics, ran_concurrently
from benchmark.results.tables import label, markdown
from openfold_opt.kernels.chips import CHIPS, find_chip

FORMATS = ("markdown", "csv", "json")


def add_parser(subparsers) -> None:
    """Declare the command line of `summarize`."""
    parser = subparsers.add_parser(
        "summarize",
        help="tables and plots from MLPerf logs",
        description=(
            "Read MLPerf HPC OpenFold logs of any submitter, and report time to train, samples "
            "to converge against the MLCommons reference convergence points (RCP), and speed. "
            "Every folder with result_*.txt is a set of runs and a row; other logs are grouped "
            "if they have the same configuration. docs/results.md explains the columns."
        ),
        epilog=(
            "The exit code is 0 if every log could be read, 1 if some were skipped (they are "
            "named), 2 if none could be read. A set that fails the RCP checker is reported; that "
            "is not an error."
        ),
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="LOG_OR_DIR",
        help="log of a run, or folder to search for logs",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="format to print (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=(
            "also write summary.md, summary.csv, summary.json and the plots to DIR; created if "
            "missing"
        ),
    )
    parser.add_argument(
        "--throughput",
        action="store_true",
        help=(
            "the runs of every set ran concurrently in one job (throughput, or weak scaling, in "
            "MLPerf). Without this option, a folder is a throughput result if its name, or that "
            "of one of its two parents, ends in 'weak' or 'throughput'"
        ),
    )
    parser.add_argument(
        "--accelerator",
        action="append",
        default=[],
        metavar="SYSTEM=NAME",
        help=(
            "accelerator of a system whose logs do not name it, such as perlmutter_224x4=A100; "
            "needed for the share of peak"
        ),
    )


def run(args: argparse.Namespace) -> int:
    """Print the summary, write the files, and return the exit code."""
    accelerators = _accelerators(args.accelerator)
    gathered = gather(args.paths, is_throughput=args.throughput)
    metrics = [_metrics(each, accelerators) for each in gathered.sets]
    texts = render(gathered, metrics)
    print(texts[args.format], end="")
    for line in remarks(gathered, metrics):
        print(f"note: {line}", file=sys.stderr)
    # The Markdown text includes the skipped logs.
    for rejection in gathered.rejections if args.format != "markdown" else ():
        print(f"skipped: {rejection.path}: {rejection.reason}", file=sys.stderr)
    if args.out is not None:
        write(args.out, texts, gathered, metrics)
    if not gathered.sets:
        raise BenchmarkError("no log could be read; see the reasons above")
    return 1 if gathered.rejections else 0


def render(gathered: Gathered, metrics: Sequence[Metrics]) -> dict[str, str]:
    """Return the summary in every format."""
    return {
        "markdown": markdown(metrics, gathered.rejections),
        "csv": as_csv(metrics),
        "json": as_json(metrics, [each.runs for each in gathered.sets], gathered.rejections),
    }


def remarks(gathered: Gathered, metrics: Sequence[Metrics]) -> list[str]:
    """Return notes about assumptions that were made and about inconsistencies."""
    notes = [
        f"{folder}: skipped, it has results of another benchmark"
        for folder in gathered.foreign_folders
    ]
    for result_set, of_set in zip(gathered.sets, metrics, strict=True):
        name = label(of_set)
        # Only the share of peak needs the accelerator, and only the benchmark's model has one.
        if (
            of_set.accelerators
            and of_set.accelerator is None
            and of_set.reference_samples is not None
        ):
            notes.append(
                f"{name}: the logs do not name the accelerators, so their peak is unknown; give "
                f"--accelerator {of_set.system}=NAME"
            )
        if result_set.origin.is_throughput:
            notes.append(
                f"{name}: assumed to be a throughput result, {of_set.runs} concurrent runs"
            )
            if not ran_concurrently(result_set.runs):
                notes.append(f"{name}: but its runs were not all running at the same time")
        elif ran_concurrently(result_set.runs):
            notes.append(
                f"{name}: its runs were concurrent; if they were one job, --throughput reports "
                "the time of the whole job"
            )
    return notes


def write(
    folder: Path, texts: dict[str, str], gathered: Gathered, metrics: Sequence[Metrics]
) -> None:
    """Write the texts and the plots into one folder.

    Raises:
        BenchmarkError: A file cannot be written.
    """
    # matplotlib takes a second to import, and is needed only here.
    from benchmark.results.pictures import draw_all

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, suffix in zip(FORMATS, ("md", "csv", "json"), strict=True):
            replace_text(folder / f"summary.{suffix}", texts[name])
        if metrics:
            draw_all(folder, gathered.sets, metrics)
    except OSError as error:
        raise BenchmarkError(
            f"--out {folder}: cannot be written: {error.strerror or error}"
        ) from error


def _metrics(result_set: ResultSet, accelerators: dict[str, str]) -> Metrics:
    """Compute the metrics of a set. accelerators: system -> accelerator, from --accelerator."""
    metrics = compute_metrics(result_set)
    name = accelerators.get(metrics.system)
    return compute_metrics(result_set, accelerator=name) if name else metrics


def _accelerators(pairs: Sequence[str]) -> dict[str, str]:
    accelerators = {}
    for pair in pairs:
        system, equals, name = pair.partition("=")
        if not (system and equals and find_chip(name)):
            known = ", ".join(dict.fromkeys(chip.short_name for chip in CHIPS))
            raise BenchmarkError(
                f"--accelerator {pair}: expected SYSTEM=NAME, where NAME contains one of {known}"
            )
        accelerators[system] = name
    return accelerators
