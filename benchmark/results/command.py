"""`summarize`: tables and pictures from anybody's MLPerf HPC OpenFold logs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import BenchmarkError
from benchmark.results.files import as_csv, as_json
from benchmark.results.gather import Gathered, ResultSet, gather
from benchmark.results.metrics import Metrics, compute_metrics, went_side_by_side
from benchmark.results.peak import PEAK_TFLOP_PER_SECOND
from benchmark.results.tables import label, markdown

FORMATS = ("markdown", "csv", "json")


def add_parser(subparsers) -> None:
    """Declare the command line of `summarize`."""
    parser = subparsers.add_parser(
        "summarize",
        help="tables and pictures from MLPerf logs",
        description="Read MLPerf HPC OpenFold logs, anybody's, and tell time to train, samples to converge against the MLCommons reference "
        "convergence points, and speed. Every folder with result_*.txt is a set of runs and a row; other logs are put together "
        "where they are of one kind. docs/results.md explains the columns.",
        epilog="The exit code is 0 if every log could be read, 1 if some were left out (they are named; the others are told of), 2 if none "
        "could. A set that fails the RCP checker is reported, and is no error.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="LOG_OR_DIR",
        help="log of a run, or folder with logs in it or below it",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="what is printed (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write summary.md, summary.csv, summary.json and the pictures there; made if missing",
    )
    parser.add_argument(
        "--throughput",
        action="store_true",
        help="the runs of every set went side by side in one job (MLPerf calls it throughput, or weak scaling). Without it, folders "
        "whose name, or that of one of the two above, ends in 'weak' or 'throughput' are taken for such",
    )
    parser.add_argument(
        "--accelerator",
        action="append",
        default=[],
        metavar="SYSTEM=NAME",
        help="accelerator of a system whose logs do not name it, such as perlmutter_224x4=A100; for the share of peak",
    )


def run(args: argparse.Namespace) -> int:
    """Print, write, and return the exit code."""
    accelerators = _accelerators(args.accelerator)
    gathered = gather(args.paths, is_throughput=args.throughput)
    metrics = [_metrics(each, accelerators) for each in gathered.sets]
    texts = render(gathered, metrics)
    print(texts[args.format], end="")
    for line in remarks(gathered, metrics):
        print(f"note: {line}", file=sys.stderr)
    # in Markdown they are a part of the text
    for rejection in gathered.rejections if args.format != "markdown" else ():
        print(f"left out: {rejection.path}: {rejection.reason}", file=sys.stderr)
    if args.out is not None:
        write(args.out, texts, gathered, metrics)
    if not gathered.sets:
        raise BenchmarkError("not one log could be read; the reasons are above")
    return 1 if gathered.rejections else 0


def render(gathered: Gathered, metrics: Sequence[Metrics]) -> dict[str, str]:
    """The text of every format."""
    return {
        "markdown": markdown(metrics, gathered.rejections),
        "csv": as_csv(metrics),
        "json": as_json(metrics, [each.runs for each in gathered.sets], gathered.rejections),
    }


def remarks(gathered: Gathered, metrics: Sequence[Metrics]) -> list[str]:
    """What was taken for granted, or looks odd."""
    found = [
        f"{folder}: passed over, it holds results of another benchmark"
        for folder in gathered.passed_over
    ]
    for each, of_it in zip(gathered.sets, metrics, strict=True):
        if of_it.accelerators and of_it.accelerator is None and of_it.reference_samples is not None:
            found.append(
                f"{label(of_it)}: its accelerators are not named, so their peak is not known; --accelerator {of_it.system}=NAME tells"
            )
        if each.place.is_throughput:
            found.append(
                f"{label(of_it)}: taken as a throughput result, {of_it.runs} runs side by side"
            )
            if not went_side_by_side(each.runs):
                found.append(
                    f"{label(of_it)}: but not all of its runs were under way at the same time"
                )
        elif went_side_by_side(each.runs):
            found.append(
                f"{label(of_it)}: its runs went side by side; if they were one job, --throughput tells its time as a whole"
            )
    return found


def write(
    folder: Path, texts: dict[str, str], gathered: Gathered, metrics: Sequence[Metrics]
) -> None:
    """Everything into one folder. BenchmarkError if that cannot be written."""
    # matplotlib takes a second to load, and a table does not need it
    from benchmark.results.pictures import draw_all

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, suffix in zip(FORMATS, ("md", "csv", "json"), strict=True):
            (folder / f"summary.{suffix}").write_text(texts[name], encoding="utf-8")
        if metrics:
            draw_all(folder, gathered.sets, metrics)
    except OSError as error:
        raise BenchmarkError(
            f"--out {folder}: cannot be written: {error.strerror or error}"
        ) from error


def _metrics(each: ResultSet, accelerators: dict[str, str]) -> Metrics:
    of_it = compute_metrics(each)
    name = accelerators.get(of_it.system)
    return compute_metrics(each, accelerator=name) if name else of_it


def _accelerators(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        system, equals, name = pair.partition("=")
        if not (
            system and equals and any(pattern.search(name) for pattern, _ in PEAK_TFLOP_PER_SECOND)
        ):
            raise BenchmarkError(
                f"--accelerator {pair}: expected SYSTEM=NAME, where NAME has H100, H200, GH200 or A100 in it"
            )
        found[system] = name
    return found
