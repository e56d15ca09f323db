"""`plan loader`: how long training waits for its samples, simulated for many ranks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.command_line import check_json_option, real_number, whole_number
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.loader_plan import busy_share, plan_loader
from benchmark.plan.loader_simulation import LoaderSetting, LoaderWaits
from benchmark.plan.preparation_times import PreparationTimes, preparation_times
from benchmark.replace_file import replace_text

MAX_SECONDS = 1e6
"""Longest step that is simulated."""


@dataclass(frozen=True, kw_only=True)
class LoaderPlan:
    """The simulated waits of several settings, with the distribution of the sample times."""

    times: PreparationTimes
    seed: int
    results: list[tuple[LoaderSetting, LoaderWaits]]

    def as_json(self) -> dict[str, object]:
        """Return the record: every number of the table, and what they come from."""
        return {
            "times": self.times.as_json(),
            "seed": self.seed,
            "results": [
                {
                    "setting": asdict(setting),
                    "busy_share": busy_share(setting, self.times),
                    "waits": {
                        **asdict(waits),
                        "lost_share": waits.lost_share,
                        "own_share": waits.own_share,
                        "wait_of_micro_step": waits.wait_of_micro_step,
                    },
                }
                for setting, waits in self.results
            ],
        }

    def describe(self) -> str:
        """Format a table with a row for each setting."""
        header = ["groups x window", "lost", "own wait", "wait", "longest", "median step", "busy"]
        rows = [
            [
                f"{setting.num_groups} x {setting.window or 'in order'}",
                f"{waits.lost_share:.1%}",
                f"{waits.own_share:.1%}",
                f"{waits.wait_of_micro_step:.3f} s",
                f"{waits.longest_wait_seconds:.2f} s",
                f"{waits.median_step_seconds:.3f} s",
                f"{busy_share(setting, self.times):.0%}",
            ]
            for setting, waits in self.results
        ]
        first = self.results[0][0]
        return (
            f"simulated: {first.num_steps} steps of {first.step_seconds:g} s, "
            f"{first.num_workers} workers x {first.prefetch_per_worker} batches per group; "
            f"{self.times.mean_seconds:.3g} s per sample on average, from {self.times.source}, "
            f"{self.times.shape}\n\n"
            f"{table(rows, header=header)}\n\n"
            "lost: share of the time that the steps wait for the slowest group; own wait: share "
            "that a group waits for its own samples;\nwait: mean of a micro-step for the slowest "
            "group (plan train --loader-wait); busy: share of the time that workers prepare"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    _add_times(parser)
    duration = real_number(more_than=0, at_most=MAX_SECONDS)
    add("--step-seconds", type=duration, required=True, metavar="S", help="step without any wait")
    groups, windows = whole_number(1, 100_000), whole_number(0, 1_000_000)
    _add_counts(parser, "--groups", groups, (1, 128, 256), "groups of ranks that share a sample")
    _add_counts(parser, "--windows", windows, (0, 256), "reorder windows; 0 delivers in order")
    for name, bounds, default, what in (
        ("--workers", (1, 1_000), 2, "workers of a group"),
        ("--prefetch", (1, 1_000), 2, "batches that each worker prepares ahead"),
        ("--accumulation", (1, 10_000), 1, "micro-batches"),
        ("--local-batch", (1, 10_000), 1, "samples of one"),
        ("--depth", (0, 1_000), 2, "batches copied ahead"),
        ("--steps", (1, 1_000_000), 1000, "simulated steps"),
        ("--seed", (0, 2**63 - 1), 0, "seed of the times"),
    ):
        text = f"{what} (default: {default})"
        add(name, type=whole_number(*bounds), default=default, metavar="N", help=text)
    staging = real_number(at_least=0, at_most=MAX_SECONDS)
    add("--staging-seconds", type=staging, default=0.0, metavar="S", help="copy to the device")
    add("--json", type=Path, metavar="FILE", help="write all numbers to FILE")


def _add_times(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--times",
        type=Path,
        metavar="FILE",
        help="record of `perf data --json` (default: stored times of 88 real chains)",
    )
    add(
        "--side",
        choices=("reference", "ours"),
        default="ours",
        help="implementation whose times to take (default: %(default)s)",
    )
    add(
        "--shape",
        choices=("measured", "lognormal"),
        default="measured",
        help="draw measured times, or from a lognormal distribution (default: %(default)s)",
    )
    add(
        "--time-scale",
        type=real_number(more_than=0, at_most=1e6),
        default=1.0,
        metavar="X",
        help="factor of the times, for a slower or faster processor (default: 1)",
    )


def _add_counts(
    parser: argparse.ArgumentParser,
    name: str,
    parse: Callable[[str], int],
    default: tuple[int, ...],
    what: str,
) -> None:
    parser.add_argument(
        name,
        type=parse,
        nargs="+",
        default=list(default),
        metavar="N",
        help=f"{what} (default: {' '.join(map(str, default))})",
    )


def run(args: argparse.Namespace) -> int:
    """Simulate every number of groups with every window, and print a table."""
    check_json_option(args.json)
    times = preparation_times(args.times, side=args.side, shape=args.shape).scaled(args.time_scale)
    results = []
    for groups in args.groups:
        for window in args.windows:
            setting = _setting(args, groups=groups, window=window)
            results.append((setting, plan_loader(setting, times, seed=args.seed)))
    plan = LoaderPlan(times=times, seed=args.seed, results=results)
    if args.json is not None:
        replace_text(args.json, json.dumps(plan.as_json(), indent=1) + "\n")
    print(plan.describe())
    return 0


def _setting(args: argparse.Namespace, *, groups: int, window: int) -> LoaderSetting:
    return LoaderSetting(
        step_seconds=args.step_seconds,
        num_steps=args.steps,
        num_workers=args.workers,
        prefetch_per_worker=args.prefetch,
        window=window,
        num_groups=groups,
        accumulation=args.accumulation,
        local_batch_size=args.local_batch,
        staging_seconds=args.staging_seconds,
        prefetch_depth=args.depth,
    )
