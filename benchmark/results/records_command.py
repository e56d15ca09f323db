"""`results`: keeps our own records, and makes the table of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.errors import BenchmarkError
from benchmark.results.archive import TABLE_FILE, format_table
from benchmark.results.archive_run import archive_run

RESULTS = Path(__file__).resolve().parents[2] / "results"


def add_parser(subparsers) -> None:
    """Declare the command line of `results`."""
    parser = subparsers.add_parser(
        "results",
        help="our own records and their table",
        description=f"Make results/{TABLE_FILE} from the records in results/measured and results/runs; with --add keep a run there first.",
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="the records (default: results of the checkout)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--add",
        action="store_true",
        help="keep the finished run RUN_DIR: mlperf.log, config.json without the host's name, command",
    )
    action.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit code 1 if the table in the tree is not what would be made",
    )
    parser.add_argument(
        "run_dir",
        nargs="?",
        type=Path,
        metavar="RUN_DIR",
        help="with --add: output directory of a finished run",
    )
    parser.add_argument(
        "--name", help="of the folder that a run is kept in, such as demo_seed_1_2026-11-21"
    )
    parser.add_argument(
        "--command",
        dest="repeat",
        metavar="TEXT",
        help="the command that repeats the run, if it was on several nodes",
    )


def run(args: argparse.Namespace) -> int:
    """Returns the exit code."""
    results = args.results_dir
    if not results.is_dir():
        raise BenchmarkError(f"--results-dir {results} is not a directory")
    if not args.add == (args.run_dir is not None) == (args.name is not None):
        raise BenchmarkError("--add, RUN_DIR and --name NAME belong together")
    if args.add:
        archive_run(args.run_dir, results / "runs", name=args.name, command=args.repeat)
    text = format_table(results)
    target = results / TABLE_FILE
    is_current = target.is_file() and target.read_text(encoding="utf-8") == text
    if args.check:
        print(
            f"{target} is {'current' if is_current else 'not current; python -m benchmark results makes it anew'}"
        )
        return 0 if is_current else 1
    target.write_text(text, encoding="utf-8")
    print(f"{target} {'was current' if is_current else 'written'}")
    return 0
