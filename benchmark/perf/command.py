"""`python -m benchmark perf MEASUREMENT`: run one of MEASUREMENTS."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

from benchmark.command_line import add_lazy_commands
from benchmark.perf.tools.perf_record import RecordFile
from openfold_opt.parallel.launch import read_launch_info

INTERRUPTED_EXIT_CODE = 130
"""Exit code after SIGINT, as in a shell."""

MEASUREMENTS = {
    "agreement": "losses and gradients of a step with fused bf16 kernels against reference kernels",
    "comm": "measured and predicted times of the collectives of a training step (torchrun)",
    "counts": (
        "bytes, FLOPs and launches of a training step by module, counted without a GPU; with "
        "--roofline, its least time on a GPU, launch by launch, and an estimate"
    ),
    "data": "conversion and sample preparation on one core, compared with the MLCommons reference",
    "evaluation": "step time while other ranks evaluate, and between evaluations (torchrun)",
    "host": "launches of a step of the MLCommons reference, and what they take of the host",
    "kernels": "operations against reference kernels, torch.compile and other attention libraries",
    "loader": "time that training waits for heavy-tailed samples, delivered in order and reordered",
    "losses": (
        "losses of the optimized path against the reference; baselines: perturbed weights and "
        "other seeds"
    ),
    "precision": "losses and gradients in bf16, with reference and fused kernels, against float32",
    "predict": (
        "time, memory and results of one forward pass, compared with OpenFold and the MLCommons "
        "reference"
    ),
    "resources": "registers, shared memory, stack and spills of all kernels; needs no GPU",
    "step": "time and peak memory of a training step on synthetic features",
    "tune": "time every kernel with other warps and stages, and write the tuning file of this GPU",
}
"""Name -> what it measures.

The module benchmark.perf.<name> defines

    METRICS                   the frozen dataclass of its metrics
    add_arguments(parser)
    measure(args) -> metrics  a slow one saves the metrics so far: args.record.save(metrics)
    report(metrics) -> text
    headline(metrics) -> one line for the table of results, also for an interrupted record

Fields that are added to METRICS later have defaults, so that old records remain readable. If
METRICS has a field `failures`, it lists the parts that failed, and the exit code is 1 if there are
any.
"""


def _module(measurement: str) -> ModuleType:
    return importlib.import_module(f"benchmark.perf.{measurement}")


def _declare(measurement: str, parser: argparse.ArgumentParser) -> None:
    _module(measurement).add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record to FILE")


def add_parser(subparsers) -> None:
    """Declare the command line of `perf`."""
    parser = subparsers.add_parser(
        "perf",
        help="performance measurements",
        description=(
            "Measure a part of the system and, where available, a baseline in the same run. "
            "Prints a table; --json writes all individual times, machine, versions and command."
        ),
    )
    add_lazy_commands(parser, MEASUREMENTS, dest="measurement", declare=_declare)


def run(args: argparse.Namespace) -> int:
    """Measure, print the report and write the record.

    Returns:
        0; 1 if a part failed; 130 after SIGINT, with a record of the metrics so far.
    """
    is_first_rank = read_launch_info().rank == 0
    args.record = RecordFile(args.json if is_first_rank else None, measurement=args.measurement)
    module = _module(args.measurement)
    try:
        metrics = module.measure(args)
    except KeyboardInterrupt:
        args.record.save_interrupted()
        saved = "" if args.json is None else f"; {args.json} has the metrics so far"
        print(f"perf {args.measurement}: interrupted{saved}", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    # Only rank 0 reports.
    if not is_first_rank:
        return 0
    args.record.save(metrics, is_complete=True)
    print(module.report(metrics))
    failures = getattr(metrics, "failures", [])
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0
