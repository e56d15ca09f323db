"""`python -m benchmark perf MEASUREMENT`: the measurements of MEASUREMENTS."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

from benchmark.arguments import BriefParser
from benchmark.perf.record import RecordFile
from openfold_opt.parallel.launch import read_launch_info

INTERRUPTED_EXIT_CODE = 130
"""Exit code after SIGINT, that of a shell."""

MEASUREMENTS = {
    "agreement": "one step with fused kernels in bf16 against reference kernels: losses, gradients",
    "comm": "every collective of a training step, measured, and predicted from latency and bandwidth (torchrun)",
    "counts": "bytes, operations and launches of a training step by module, counted without a device: plain against fused",
    "data": "conversion and sample preparation on one core, beside the MLCommons reference's",
    "evaluation": "training steps while other ranks evaluate, against steps between evaluations (torchrun)",
    "kernels": "every operation against its plain version, torch.compile of it, and attentions of other libraries",
    "loader": "time that training waits for heavy-tailed samples, in order and out of order",
    "losses": "whether the fast path trains like the plain one: losses over some hundred steps, beside runs that differ by a rounding",
    "precision": "losses and gradients in bf16, plain and fused, against plain float32",
    "resources": "compile the kernels of a training step for a GPU that need not be there: registers, shared memory, stack, spills",
    "step": "a training step on made-up features: seconds by number of recycling passes, peak memory",
    "tune": "choose warps and stages of every kernel by time, and write the file of this chip",
}
"""Name -> what it measures.

The module benchmark.perf.<name> has add_arguments(parser), measure(args) -> figures, and
report(figures) -> text. measure() calls args.record.save(figures) after every figure if it takes
long. It puts a line for whatever failed into figures["failures"]; the exit code is then 1.
"""


class _LazyParser(BriefParser):
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
    kinds = parser.add_subparsers(
        dest="measurement", metavar=names, required=True, parser_class=_LazyParser
    )
    for name, text in MEASUREMENTS.items():
        kinds.add_parser(name, help=text, description=text).measurement = name


def run(args: argparse.Namespace) -> int:
    """Measure, print and write the record.

    Returns:
        0; 1 if a part failed; 130 after SIGINT, with a record of the figures so far.
    """
    is_first_rank = read_launch_info().rank == 0
    args.record = RecordFile(args.json if is_first_rank else None, measurement=args.measurement)
    module = _module(args.measurement)
    try:
        metrics = module.measure(args)
    except KeyboardInterrupt:
        args.record.save_interrupted()
        kept = "" if args.json is None else f"; {args.json} has the figures so far"
        print(f"perf {args.measurement}: interrupted{kept}", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    # Only the first of several ranks reports.
    if not is_first_rank:
        return 0
    args.record.save(metrics, is_complete=True)
    print(module.report(metrics))
    failures = metrics.get("failures", [])
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0
