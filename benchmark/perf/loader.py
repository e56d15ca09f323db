"""`perf loader`: measure how long training waits for heavy-tailed samples, in order and reordered.

A few samples take much longer than most. Preparation times are replayed by sleeping. They
are drawn from those in a record of `perf data` (--times) or from built-in ones, and are scaled so
that the workers are busy for a given share of the time. With in-order delivery, every sample behind
a slow one waits. Both loaders have the same number of workers and the same sequence of times.

It also measures how long a step waits for its batch with each prefetcher (benchmark.perf.prefetch).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.command_line import BenchmarkError
from benchmark.perf.prefetch import (
    PrefetchMetrics,
    PrefetchPlan,
    measure_prefetch,
    report_prefetch,
    summarize_prefetch,
)
from benchmark.perf.tools.options import Parser, add_count, add_threads
from benchmark.perf.tools.sample_times import BUILT_IN_SECONDS, read_times
from benchmark.perf.tools.timing_stats import table
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.workers import WorkerStream
from openfold_opt.train.build_run import resolve_device


@dataclass(frozen=True, kw_only=True)
class ReplayTask:
    """Loader task that sleeps instead of preparing the sample at a position."""

    seconds: tuple[float, ...]
    seed: int

    def time_of(self, position: int) -> float:
        """Return the seconds drawn for a position, which are the same for every loader."""
        return self.seconds[
            int(np.random.default_rng([self.seed, position]).integers(len(self.seconds)))
        ]

    def __call__(self, position: int) -> tuple[int, dict[str, np.ndarray]]:
        time.sleep(self.time_of(position))
        return position, {"position": np.array(position)}

    def describe(self, position: int) -> str:
        """Return the name of the sample for error messages."""
        return f"replayed sample {position}"


@dataclass(frozen=True, kw_only=True)
class ReplayTimes:
    """Waiting times of one loader, and statistics of the delivered samples."""

    window: int
    """Reorder window; 0 delivers in order."""
    stall_share: float
    """Share of the time that training waits."""
    seconds: float
    """From the first delivery to the end."""
    longest_wait_seconds: float
    largest_reorder_distance: int
    """Positions by which a sample was ahead of the first missing one."""
    largest_lateness: int
    """Positions by which a sample was delivered later than in order."""
    delivered: int
    delivered_twice: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class LoaderMetrics:
    """Metrics of `perf loader`.

    `staging` is None if only the orders of delivery were measured, and the other fields are None if
    only the prefetchers were measured.
    """

    source: str | None = None
    """Where the preparation times come from."""
    steps: int | None = None
    step_seconds: float | None = None
    workers: int | None = None
    prefetch_per_worker: int | None = None
    busy: float | None = None
    """Mean share of the time that workers are busy."""
    scale: float | None = None
    """Factor of the preparation times."""
    slowest_in_steps: float | None = None
    """Preparation time of the slowest sample divided by the duration of a step."""
    loaders: dict[str, ReplayTimes] | None = None
    """Order of delivery -> times of its loader."""
    staging: PrefetchMetrics | None = None


METRICS = LoaderMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--only",
        choices=("order", "staging"),
        help="measure only the orders of delivery, or only the prefetchers",
    )
    _add_times_arguments(parser)
    _add_loader_arguments(parser)
    _add_prefetch_arguments(parser)


def _add_times_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("preparation times, for the orders of delivery")
    group.add_argument(
        "--times",
        type=Path,
        metavar="FILE",
        help="record of `perf data --json` (default: a built-in distribution)",
    )
    group.add_argument(
        "--side",
        choices=("reference", "ours"),
        default="reference",
        help="implementation whose times to take from the record (default: %(default)s)",
    )
    _add_float(group, "--busy", default=0.5, what="mean share of the time that workers are busy")
    add_count(group, "--seed", default=0, what="seed of the sequence of times")


def _add_loader_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("loaders, for the orders of delivery")
    add_count(group, "--steps", default=2000, what="samples to deliver")
    _add_float(group, "--step-ms", default=10.0, what="duration of a training step")
    add_count(group, "--workers", default=8, what="worker processes of each loader")
    add_count(group, "--prefetch", default=8, what="batches that each worker prepares ahead")
    add_count(group, "--window", default=256, what="reorder window of the second loader")


def _add_prefetch_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prefetchers")
    add_count(group, "--crop", default=256, what="residues of a sample")
    batches = "timed batches of each prefetcher and round"
    add_count(group, "--staging-steps", default=20, what=batches)
    add_count(group, "--rounds", default=4, what="rounds in which the prefetchers alternate")
    _add_float(group, "--staging-step-ms", default=200.0, what="duration of a training step")
    add_threads(group)


def _add_float(group: Parser, name: str, *, default: float, what: str) -> None:
    group.add_argument(
        name, type=float, default=default, metavar="T", help=f"{what} (default: {default})"
    )


def measure(args: argparse.Namespace) -> LoaderMetrics:
    """Measure the orders of delivery on one sequence of times, then the prefetchers."""
    _check(args)
    metrics = LoaderMetrics()
    if args.only != "staging":
        metrics = _measure_orders(args)
        args.record.save(metrics)
    if args.only != "order":
        plan = PrefetchPlan(
            crop_size=args.crop,
            rounds=args.rounds,
            steps=args.staging_steps,
            step_seconds=args.staging_step_ms / 1000,
            depth=LoaderConfig().prefetch_depth,
        )
        torch.set_num_threads(args.threads)
        staging = measure_prefetch(
            plan,
            device=resolve_device("auto", local_rank=0),
            save=lambda staging: args.record.save(dataclasses.replace(metrics, staging=staging)),
        )
        metrics = dataclasses.replace(metrics, staging=staging)
    return metrics


def _check(args: argparse.Namespace) -> None:
    if (
        args.steps < 1
        or args.step_ms <= 0
        or args.workers < 1
        or not 0 < args.busy < 1
        or args.window < 1
        or args.prefetch < 1
    ):
        raise BenchmarkError(
            "--steps, --workers, --prefetch and --window must be at least 1, --step-ms above 0 "
            "and --busy between 0 and 1"
        )
    counts = (args.crop, args.staging_steps, args.rounds, args.threads)
    if min(counts) < 1 or args.staging_step_ms < 0:
        raise BenchmarkError(
            "--crop, --staging-steps, --rounds and --threads must be at least 1, "
            "--staging-step-ms at least 0"
        )


def _measure_orders(args: argparse.Namespace) -> LoaderMetrics:
    source = BUILT_IN_SECONDS if args.times is None else read_times(args.times, side=args.side)
    step = args.step_ms / 1000
    # A step uses one sample, and the workers have workers * step seconds to prepare it. The mean is
    # that of the drawn times, because the number of rare slow samples varies.
    drawn = ReplayTask(seconds=tuple(source), seed=args.seed)
    mean = float(np.mean([drawn.time_of(position) for position in range(args.steps)]))
    scale = args.busy * args.workers * step / mean
    task = ReplayTask(seconds=tuple(scale * seconds for seconds in source), seed=args.seed)
    loaders = {
        name: replay(
            task,
            config=LoaderConfig(
                num_workers=args.workers, prefetch_per_worker=args.prefetch, window=window
            ),
            steps=args.steps,
            step_seconds=step,
        )
        for name, window in (("in order", 0), (f"window {args.window}", args.window))
    }
    return LoaderMetrics(
        source="built in" if args.times is None else f"{args.times} ({args.side})",
        steps=args.steps,
        step_seconds=step,
        workers=args.workers,
        prefetch_per_worker=args.prefetch,
        busy=args.busy,
        scale=scale,
        slowest_in_steps=max(task.time_of(position) for position in range(args.steps)) / step,
        loaders=loaders,
    )


def replay(
    task: ReplayTask, *, config: LoaderConfig, steps: int, step_seconds: float
) -> ReplayTimes:
    """Run one loader, and return its waiting times and statistics of the delivered samples.

    The clock starts at the first delivery.
    """
    positions, distances, waited = [], [], []
    with WorkerStream(task, config=config, end=steps) as deliveries:
        first = next(deliveries)
        positions.append(first.position)
        started = time.perf_counter()
        while True:
            time.sleep(step_seconds)
            requested = time.perf_counter()
            delivery = next(deliveries, None)
            if delivery is None:
                break
            waited.append(time.perf_counter() - requested)
            positions.append(delivery.position)
            distances.append(delivery.reorder_distance)
        total = time.perf_counter() - started
    lateness = [index - position for index, position in enumerate(positions)]
    return ReplayTimes(
        window=config.window,
        stall_share=sum(waited) / total,
        seconds=total,
        longest_wait_seconds=max(waited),
        largest_reorder_distance=max(distances),
        largest_lateness=max(lateness),
        delivered=len(positions),
        delivered_twice=len(positions) - len(set(positions)),
        missing=steps - len(set(positions)),
    )


def report(metrics: LoaderMetrics) -> str:
    """Format a table of the orders of delivery, and one of the prefetchers."""
    parts = [] if metrics.loaders is None else [_report_orders(metrics, metrics.loaders)]
    parts += [] if metrics.staging is None else [report_prefetch(metrics.staging)]
    return "\n\n".join(parts)


def _report_orders(metrics: LoaderMetrics, loaders: dict[str, ReplayTimes]) -> str:
    assert metrics.step_seconds is not None
    rows = [
        [
            name,
            f"{loader.stall_share:.1%}",
            f"{loader.seconds:.1f} s",
            f"{loader.longest_wait_seconds * 1000:.0f} ms",
            str(loader.largest_reorder_distance),
            str(loader.largest_lateness),
            f"{loader.delivered} ({loader.missing} missing, {loader.delivered_twice} twice)",
        ]
        for name, loader in loaders.items()
    ]
    header = ["loader", "waiting", "total", "longest wait", "ahead", "late", "delivered"]
    return (
        f"{metrics.steps} steps of {metrics.step_seconds * 1000:.0f} ms, {metrics.workers} workers "
        f"busy {metrics.busy:.0%} of the time, the slowest sample takes "
        f"{metrics.slowest_in_steps:.0f} steps; times: {metrics.source}\n\n"
        f"{table(rows, header=header)}"
    )


def headline(metrics: LoaderMetrics) -> str:
    """Return one line with the waits of each loader and each prefetcher."""
    parts = []
    if metrics.loaders is not None:
        waits = [f"{name} {loader.stall_share:.1%}" for name, loader in metrics.loaders.items()]
        parts.append(f"share of time that training waits: {', '.join(waits)}")
    if metrics.staging is not None:
        parts.append(summarize_prefetch(metrics.staging))
    return "; ".join(parts)
