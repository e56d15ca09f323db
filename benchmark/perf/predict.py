"""`perf predict`: time, memory and results of one forward pass, compared with other projects."""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.command_line import BenchmarkError
from benchmark.perf.step import what_runs
from benchmark.perf.subprocesses.forward_measurement import ForwardSettings
from benchmark.perf.tools.options import (
    add_count,
    add_kernels,
    add_reference,
    add_threads,
    checked_reference,
)
from benchmark.perf.tools.predict_case import (
    WARM_UP_LENGTH,
    CaseSizes,
    WeightFiles,
    write_features,
    write_weights,
)
from benchmark.perf.tools.predict_report import (
    PredictMetrics,
    SideResults,
    format_headline,
    format_report,
    with_run,
)
from benchmark.perf.tools.predict_sides import (
    OPENFOLD_NAMES,
    OURS,
    Side,
    openfold_sides,
    our_side,
    reference_side,
)
from data_prep.progress import tracked
from openfold_opt.train.build_run import resolve_device

METRICS = PredictMetrics
TOLERANCE = 1e-4
"""Largest accepted difference of results in float32, |result - ours| / |ours|."""
_GIBIBYTE = 2**30
_UNTIMED_ON_GPU = 2
"""Forward passes that compile and tune kernels before the timed one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        default=[128],
        metavar="N",
        help="numbers of residues (default: 128)",
    )
    add_count(parser, "--rounds", default=3, what="rounds in which the programs alternate")
    sizes = parser.add_argument_group("sizes", "all widths are AlphaFold2's")
    add_count(sizes, "--blocks", default=2, what="Evoformer blocks; AlphaFold2 has 48")
    add_count(sizes, "--extra-blocks", default=4, what="extra-MSA blocks")
    add_count(sizes, "--templates", default=4, what="templates")
    add_count(sizes, "--clusters", default=124, what="MSA clusters, without templates")
    add_count(sizes, "--extra-msa", default=1024, what="rows of the extra MSA")
    add_kernels(parser)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16"), help="default: fp32"
    )
    add_threads(parser)
    parser.add_argument(
        "--no-count",
        action="store_true",
        help="do not count the bytes of live tensors, which takes another run of each program",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="also print the operators that take most of the time, from another run",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        metavar="GIB",
        help=(
            "memory that a program on a CPU may allocate; one that needs more is reported as "
            "failed (default: what is available at the start)"
        ),
    )
    _add_peers(parser)


def _add_peers(parser: argparse.ArgumentParser) -> None:
    add_reference(parser.add_argument_group("MLCommons reference"), what="; runs in float32")
    openfold = parser.add_argument_group("OpenFold")
    openfold.add_argument(
        "--openfold", type=Path, metavar="CHECKOUT", help="checkout of aqlaboratory/openfold"
    )
    openfold.add_argument(
        "--openfold-python",
        default="python3",
        metavar="PYTHON",
        help="interpreter that can import the packages of OpenFold (default: python3)",
    )
    openfold.add_argument(
        "--openfold-chunks",
        nargs="+",
        default=list(OPENFOLD_NAMES),
        choices=OPENFOLD_NAMES,
        help="chunk settings to measure (default: all)",
    )
    add_count(
        openfold,
        "--unchunked-up-to",
        default=256,
        what="greatest length without chunks, which take memory with the cube of the length",
    )


def measure(args: argparse.Namespace) -> PredictMetrics:
    """Measure every program at every length."""
    _check(args)
    sides = [our_side(args.kernels)]
    if (reference := checked_reference(args)) is not None:
        sides.append(reference_side(reference))
    if args.openfold is not None:
        sides += openfold_sides(args.openfold, args.openfold_python, args.openfold_chunks)
    sizes = CaseSizes(
        blocks=args.blocks,
        extra_blocks=args.extra_blocks,
        templates=args.templates,
        clusters=args.clusters,
        extra_msa=args.extra_msa,
    )
    metrics = PredictMetrics(
        sizes=sizes,
        kernels=args.kernels,
        ran=what_runs(args.kernels, args.device),
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        rounds=args.rounds,
    )
    with tempfile.TemporaryDirectory(prefix="perf-predict-") as name:
        folder = Path(name)
        weights = write_weights(sizes, folder)
        write_features(WARM_UP_LENGTH, sizes, folder / "warm_up.npz")
        for length in args.lengths:
            files = _Files(folder=folder, weights=weights, length=length)
            write_features(length, sizes, files.features)
            _measure_length(files, sides, metrics, args)
    return metrics


def _check(args: argparse.Namespace) -> None:
    counts = (args.rounds, args.blocks, args.extra_blocks, args.templates, args.clusters)
    if min(*counts, args.extra_msa, args.threads, *args.lengths) < 1:
        raise BenchmarkError("lengths, rounds, sizes and threads must be at least 1")
    try:
        resolve_device(args.device, local_rank=0)
    except ValueError as error:
        raise BenchmarkError(f"--device {args.device}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Files of the probes at one length."""

    folder: Path
    weights: WeightFiles
    length: int

    @property
    def features(self) -> Path:
        return self.folder / f"features_{self.length}.npz"

    def results(self, side: str) -> Path:
        """Return the file for the results of a program."""
        return self.folder / f"{side.replace(' ', '_')}_{self.length}.npz"

    def settings(self, args: argparse.Namespace, side: str) -> ForwardSettings:
        """Return the settings of a timed run. The side sets its variant and its weights."""
        return ForwardSettings(
            features=str(self.features),
            warm_up_features=str(self.folder / "warm_up.npz"),
            weights="",
            results=str(self.results(side)),
            blocks=args.blocks,
            extra_blocks=args.extra_blocks,
            variant="",
            device=args.device,
            precision=args.precision,
            threads=args.threads,
            untimed=_UNTIMED_ON_GPU if args.device == "cuda" else 0,
            counts=False,
            profiles=False,
            memory_limit_bytes=_memory_limit(args),
        )


def _memory_limit(args: argparse.Namespace) -> int | None:
    if args.memory_limit is not None:
        return int(args.memory_limit * _GIBIBYTE)
    return None if args.device == "cuda" else available_bytes()


def available_bytes() -> int:
    """Return the memory that programs can use without swapping (Linux: MemAvailable)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (kibibytes,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kibibytes) * 1024


def _measure_length(
    files: _Files, sides: list[Side], metrics: PredictMetrics, args: argparse.Namespace
) -> None:
    """Alternate the programs; each also counts its tensors once, and its results are compared."""
    length, results = files.length, {side.name: SideResults() for side in sides}
    metrics.lengths[str(length)] = results
    unchunked = OPENFOLD_NAMES["unchunked"]
    if unchunked in results and length > args.unchunked_up_to:
        reason = f"not run beyond {args.unchunked_up_to} residues (--unchunked-up-to)"
        results[unchunked] = SideResults(not_run=reason)
    for number in tracked(range(args.rounds), what=f"{length} residues", unit="round"):
        for side in sides:
            if results[side.name].not_run is None:
                _run_side(side, number, results, args, files)
                if (reason := results[side.name].not_run) is not None:
                    metrics.failures.append(f"{length} residues, {side.name}: {reason}")
                args.record.save(metrics)
    if args.precision == "fp32":
        metrics.failures.extend(differing(length, results))


def _run_side(
    side: Side,
    number: int,
    results: dict[str, SideResults],
    args: argparse.Namespace,
    files: _Files,
) -> None:
    """Run a program once, and in the first round again to count or to profile."""
    settings = files.settings(args, side.name)
    is_first = number == 0
    try:
        run = side.run(settings, files.weights)
        results[side.name] = with_run(results[side.name], run, counts=False)
        if is_first and args.profile:
            side.run(dataclasses.replace(settings, profiles=True), files.weights)
        if is_first and not args.no_count and args.device == "cpu":
            run = side.run(dataclasses.replace(settings, counts=True), files.weights)
            results[side.name] = with_run(results[side.name], run, counts=True)
    except BenchmarkError as error:
        results[side.name] = dataclasses.replace(results[side.name], not_run=str(error))
        return
    ours = files.results(OURS)
    if is_first and side.name != OURS and ours.is_file():
        results[side.name].differences.update(compare(files.results(side.name), ours))


def compare(file: Path, ours: Path) -> dict[str, float]:
    """Return |result - ours| / |ours| of every result that both files have."""
    with np.load(file) as theirs, np.load(ours) as truth:
        return {
            name: float(np.linalg.norm(theirs[name] - truth[name]) / np.linalg.norm(truth[name]))
            for name in truth.files
            if name in theirs.files
        }


def differing(length: int, results: dict[str, SideResults]) -> list[str]:
    """Return a line for every result that differs from ours by more than TOLERANCE, or is NaN."""
    return [
        f"{length} residues, {name}: {result} differs from ours by {difference:.1e}, expected at "
        f"most {TOLERANCE:.0e}"
        for name, side in results.items()
        for result, difference in side.differences.items()
        if math.isnan(difference) or difference > TOLERANCE
    ]


def report(metrics: PredictMetrics) -> str:
    """Format a table for each length, and what did not run."""
    return format_report(metrics)


def headline(metrics: PredictMetrics) -> str:
    """Summarize the times by length, and the ratios to OpenFold's fastest setting."""
    return format_headline(metrics)
