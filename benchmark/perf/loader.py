"""`perf loader`: how long training waits for heavy-tailed samples, in order and out of order, with the same workers.

Preparation times are replayed by sleeping: a distribution measured by `perf data` (--times), or the built-in one. They are scaled so
that the workers are busy for a given share of the time on average, which strict order cannot make use of: whoever is behind a slow
sample waits. Both loaders get the same stream of times.

It also measures how long a step waits for its batch with each staging (benchmark.perf.prefetch).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.errors import BenchmarkError
from benchmark.perf.prefetch import PrefetchPlan, measure_prefetch, report_prefetch
from benchmark.perf.timing_stats import table
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.workers import WorkerStream
from openfold_opt.train.build_run import resolve_device

BUILT_IN_SECONDS = (0.055,) * 30 + (0.09,) * 30 + (0.15,) * 20 + (0.3,) * 12 + (0.9,) * 7 + (7.7,)
"""Shaped after the reference's times for 88 real chains: most have few sequences, one in a hundred has 40,000."""


@dataclass(frozen=True, kw_only=True)
class ReplayTask:
    """Sleeps for the time that the stream has for a position."""

    seconds: tuple[float, ...]
    seed: int

    def time_of(self, position: int) -> float:
        """Drawn by position: the same for every loader."""
        return self.seconds[
            int(np.random.default_rng([self.seed, position]).integers(len(self.seconds)))
        ]

    def __call__(self, position: int) -> tuple[int, dict[str, np.ndarray]]:
        time.sleep(self.time_of(position))
        return position, {"position": np.array(position)}

    def describe(self, position: int) -> str:
        """For error messages."""
        return f"replayed sample {position}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `perf loader`."""
    parser.add_argument(
        "--times",
        type=Path,
        metavar="FILE",
        help="a record of `perf data --json` (default: a built-in distribution)",
    )
    parser.add_argument(
        "--side",
        choices=("reference", "ours"),
        default="reference",
        help="whose times of that record (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=2000,
        metavar="N",
        help="samples to deliver (default: %(default)s)",
    )
    parser.add_argument(
        "--step-ms",
        type=float,
        default=10.0,
        metavar="T",
        help="time of a training step (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=8,
        metavar="W",
        help="worker processes of each loader (default: %(default)s)",
    )
    parser.add_argument(
        "--busy",
        type=float,
        default=0.5,
        metavar="S",
        help="share of the time that workers are busy on average (default: %(default)s)",
    )
    parser.add_argument(
        "--prefetch",
        type=int,
        default=8,
        metavar="B",
        help="batches ahead for each worker, of each loader (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=256,
        metavar="P",
        help="reorder window of the second loader (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the stream of times (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        choices=("order", "staging"),
        help="measure only orders of delivery, or only stagings",
    )
    parser.add_argument(
        "--crop",
        type=int,
        default=256,
        metavar="N",
        help="residues of a sample, for stagings (default: %(default)s)",
    )
    parser.add_argument(
        "--staging-steps",
        type=int,
        default=20,
        metavar="N",
        help="timed batches of each staging and round (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=4,
        metavar="N",
        help="how often the stagings take turns (default: %(default)s)",
    )
    parser.add_argument(
        "--staging-step-ms",
        type=float,
        default=200.0,
        metavar="T",
        help="time of a training step, for stagings (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="of PyTorch on a CPU, for stagings (default: %(default)s)",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Orders of delivery over one stream of times, then stagings; returns figures fit for JSON."""
    _check(args)
    metrics: dict[str, Any] = {}
    if args.only != "staging":
        metrics |= _measure_orders(args)
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
        device = resolve_device("auto", local_rank=0)
        metrics["staging"] = measure_prefetch(
            plan,
            device=device,
            save=lambda prefetch: args.record.save(metrics | {"staging": prefetch}),
        )
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
            "expected --steps, --workers, --prefetch and --window of at least 1, --step-ms above 0 and --busy between 0 and 1"
        )
    counts = (args.crop, args.staging_steps, args.rounds, args.threads)
    if min(counts) < 1 or args.staging_step_ms < 0:
        raise BenchmarkError(
            "expected --crop, --staging-steps, --rounds and --threads of at least 1, "
            "--staging-step-ms of at least 0"
        )


def _measure_orders(args: argparse.Namespace) -> dict[str, Any]:
    source = BUILT_IN_SECONDS if args.times is None else read_times(args.times, side=args.side)
    step = args.step_ms / 1000
    # the mean of the times that are drawn, not of the distribution: a rare slow sample may come more or less often
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
    return {
        "source": "built in" if args.times is None else f"{args.times} ({args.side})",
        "steps": args.steps,
        "step_seconds": step,
        "workers": args.workers,
        "prefetch_per_worker": args.prefetch,
        "busy": args.busy,
        "scale": scale,
        "slowest_in_steps": max(task.time_of(position) for position in range(args.steps)) / step,
        "loaders": loaders,
    }


def replay(
    task: ReplayTask, *, config: LoaderConfig, steps: int, step_seconds: float
) -> dict[str, Any]:
    """One loader: share of the time spent waiting after the first delivery, and what was delivered."""
    positions, distances, waited = [], [], []
    with WorkerStream(task, config=config, end=steps) as deliveries:
        first = next(deliveries)
        positions.append(first.position)
        started = time.perf_counter()
        while True:
            time.sleep(step_seconds)
            asked = time.perf_counter()
            delivery = next(deliveries, None)
            if delivery is None:
                break
            waited.append(time.perf_counter() - asked)
            positions.append(delivery.position)
            distances.append(delivery.reorder_distance)
        total = time.perf_counter() - started
    lateness = [place - position for place, position in enumerate(positions)]
    return {
        "window": config.window,
        "stall_share": sum(waited) / total,
        "seconds": total,
        "longest_wait_seconds": max(waited),
        "largest_reorder_distance": max(distances),
        "largest_lateness": max(lateness),
        "delivered": len(positions),
        "delivered_twice": len(positions) - len(set(positions)),
        "missing": steps - len(set(positions)),
    }


def read_times(path: Path, *, side: str) -> Sequence[float]:
    """Median time of a training sample of each chain, out of a record of `perf data`."""
    try:
        chains = json.loads(path.read_text(encoding="utf-8"))["figures"]["samples"]["training"]
        times = [float(np.median(chain[side])) for chain in chains.values() if side in chain]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{path} is no record of `perf data --json` with training samples: {type(error).__name__} {error}"
        ) from error
    if not times:
        raise BenchmarkError(
            f"{path} has no times of the side {side!r}; measure them with --reference, or choose the other --side"
        )
    return times


def report(metrics: dict[str, Any]) -> str:
    """A table of orders of delivery, and one of stagings."""
    parts = [_report_orders(metrics)] if "loaders" in metrics else []
    parts += [report_prefetch(metrics["staging"])] if "staging" in metrics else []
    return "\n\n".join(parts)


def _report_orders(metrics: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{found['stall_share']:.1%}",
            f"{found['seconds']:.1f} s",
            f"{found['longest_wait_seconds'] * 1000:.0f} ms",
            str(found["largest_reorder_distance"]),
            str(found["largest_lateness"]),
            f"{found['delivered']} ({found['missing']} missing, {found['delivered_twice']} twice)",
        ]
        for name, found in metrics["loaders"].items()
    ]
    header = ["loader", "waiting", "in all", "longest wait", "ahead", "late", "delivered"]
    return (
        f"{metrics['steps']} steps of {metrics['step_seconds'] * 1000:.0f} ms, {metrics['workers']} workers busy {metrics['busy']:.0%} of the time, "
        f"the slowest sample takes {metrics['slowest_in_steps']:.0f} steps; times: {metrics['source']}\n\n{table(rows, header=header)}"
    )
