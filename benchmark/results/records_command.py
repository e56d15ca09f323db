"""`results`: archive our own runs, and generate the table of all records."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.replace_file import replace_text
from benchmark.results.archive import TABLE_FILE, format_table
from benchmark.results.archive_run import archive_run

RESULTS = Path(__file__).resolve().parents[2] / "results"


def add_parser(subparsers) -> None:
    """Declare the command line of `results`."""
    parser = subparsers.add_parser(
        "results",
        help="our own records and their table",
        description=(
            f"Generate results/{TABLE_FILE} from the records in results/measured and "
            "results/runs. With --add, archive a run first."
        ),
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder of the records (default: results of the checkout)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--add",
        action="store_true",
        help=(
            "archive the finished run RUN_DIR: mlperf.log, config.json without the host name, "
            "command"
        ),
    )
    action.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with code 1 if the table is out of date",
    )
    parser.add_argument(
        "run_dir",
        nargs="?",
        type=Path,
        metavar="RUN_DIR",
        help="with --add: output directory of a finished run",
    )
    parser.add_argument(
        "--name", help="with --add: name of the new folder, such as demo_seed_1_2026-11-21"
    )
    parser.add_argument(
        "--command",
        dest="repeat",
        metavar="TEXT",
        help="with --add: command that repeats the run; needed if it was on several nodes",
    )


def run(args: argparse.Namespace) -> int:
    """Archive a run if requested, write or check the table, and return the exit code."""
    results = args.results_dir
    if not results.is_dir():
        raise BenchmarkError(f"--results-dir {results} is not a directory")
    if len({args.add, args.run_dir is not None, args.name is not None}) > 1:
        raise BenchmarkError("--add, RUN_DIR and --name NAME must be given together")
    if args.add:
        archive_run(args.run_dir, results / "runs", name=args.name, command=args.repeat)
    text = format_table(results)
    target = results / TABLE_FILE
    is_current = target.is_file() and target.read_text(encoding="utf-8") == text
    if args.check:
        stale = "not current; regenerate it with python -m benchmark results"
        print(f"{target} is {'current' if is_current else stale}")
        return 0 if is_current else 1
    replace_text(target, text)
    print(f"{target} {'was current' if is_current else 'written'}")
    return 0
