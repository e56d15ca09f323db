"""`python -m benchmark perf {counts,data,kernels,loader,precision,resources,step,tune}`."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path

from benchmark.errors import BenchmarkError
from benchmark.machine import describe_machine, describe_versions
from benchmark.perf import counts, data, kernels, loader, precision, resources, step, tune

MEASUREMENTS = {
    "counts": counts,
    "data": data,
    "kernels": kernels,
    "loader": loader,
    "precision": precision,
    "resources": resources,
    "step": step,
    "tune": tune,
}
"""Name -> module with HELP, add_arguments(parser), measure(args) -> figures, report(figures) -> text."""


def add_parser(subparsers) -> None:
    """Declare the command line of `perf`."""
    parser = subparsers.add_parser(
        "perf",
        help="measurements beside a named peer",
        description="Measure a part of the system, beside a named peer in the same run where one is given. Prints a table; --json keeps "
        "every single time, with machine, versions and command.",
    )
    kinds = parser.add_subparsers(dest="measurement", metavar="{" + ",".join(MEASUREMENTS) + "}", required=True)
    for name, module in MEASUREMENTS.items():
        kind = kinds.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(kind)
        kind.add_argument("--json", type=Path, metavar="FILE", help="write the record there")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; returns the exit code."""
    if args.json is not None and not args.json.parent.is_dir():
        raise BenchmarkError(f"--json {args.json}: the folder {args.json.parent} does not exist; make it first")
    module = MEASUREMENTS[args.measurement]
    figures = module.measure(args)
    print(module.report(figures))
    if args.json is not None:
        record = {
            "measurement": args.measurement,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["python", "-m", "benchmark", *sys.argv[1:]]),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "figures": figures,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0
