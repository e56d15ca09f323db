"""`python -m benchmark perf {comm,counts,data,evaluation,kernels,loader,losses,precision,resources,step,tune}`."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

from benchmark.errors import BenchmarkError
from benchmark.machine import describe_machine, describe_versions
from openfold_opt.parallel.launch import read_launch_info

MEASUREMENTS = {
    "comm": "every collective of a training step, measured, and predicted from latency and bandwidth (torchrun)",
    "counts": "bytes, operations and launches of a training step by module, counted without a device: plain against fused",
    "data": "conversion and sample preparation on one core, beside the reference's",
    "evaluation": "training steps while other ranks evaluate, against steps between evaluations (torchrun)",
    "kernels": "every operation against its plain version, torch.compile of it, and attentions of other libraries",
    "loader": "time that training waits for heavy-tailed samples, in order and out of order",
    "losses": "whether the fast path trains like the plain one: losses over some hundred steps, beside runs that differ by a rounding",
    "precision": "losses and gradients in bf16, plain and fused, against plain float32",
    "resources": "compile the kernels of a training step for a GPU that need not be there: registers, shared memory, stack, spills",
    "step": "a training step on made-up features: seconds by number of recycling passes, peak memory",
    "tune": "choose warps and stages of every kernel by time, and write the file of this chip",
}
"""Name -> what it measures. The module benchmark.perf.<name> has add_arguments(parser), measure(args) -> figures, report(figures) -> text."""


class _LazyParser(argparse.ArgumentParser):
    """Gets its arguments from the measurement's module once it is used: others may want packages that this machine lacks."""

    measurement: str
    is_complete = False

    def parse_known_args(self, args=None, namespace=None):
        """As ArgumentParser's."""
        if not self.is_complete:
            self.is_complete = True
            _module(self.measurement).add_arguments(self)
            self.add_argument("--json", type=Path, metavar="FILE", help="write the record there")
        return super().parse_known_args(args, namespace)


def _module(measurement: str) -> ModuleType:
    return importlib.import_module(f"benchmark.perf.{measurement}")


def add_parser(subparsers) -> None:
    """Declare the command line of `perf`."""
    parser = subparsers.add_parser(
        "perf",
        help="measurements beside a named peer",
        description="Measure a part of the system, beside a named peer in the same run where one is given. Prints a table; --json keeps "
        "every single time, with machine, versions and command.",
    )
    names = "{" + ",".join(MEASUREMENTS) + "}"
    kinds = parser.add_subparsers(dest="measurement", metavar=names, required=True, parser_class=_LazyParser)
    for name, text in MEASUREMENTS.items():
        kinds.add_parser(name, help=text, description=text).measurement = name


def run(args: argparse.Namespace) -> int:
    """Measure, print, write; returns the exit code."""
    if args.json is not None and not args.json.parent.is_dir():
        raise BenchmarkError(f"--json {args.json}: the folder {args.json.parent} does not exist; make it first")
    module = _module(args.measurement)
    figures = module.measure(args)
    # measurements of several ranks are told by the first
    if read_launch_info().rank != 0:
        return 0
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
