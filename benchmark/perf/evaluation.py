"""`perf evaluation`: what evaluation on ranks of its own costs the ranks that train: step times during evaluations and between them."""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.perf.timing_stats import TimingStats, table
from benchmark.presets import build_preset, preset_names
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.train.build_run import RunPaths, resolve_device
from openfold_opt.train.checkpoint import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.errors import SetupError
from openfold_opt.train.observer import EvaluationReport, NullObserver, RunSummary, StepReport
from openfold_opt.train.trainer import Trainer

NUM_SETTLING_STEPS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Trains a preset with some ranks that only evaluate, and compares the steps made during evaluations with those made between them. "
        "Start it with torchrun --nproc-per-node 2 -m benchmark perf evaluation (or more ranks)."
    )
    parser.add_argument(
        "--preset", default="demo", choices=preset_names(), help="what to train (default: demo)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        required=True,
        metavar="D",
        help="made by `python -m data_prep convert`",
    )
    parser.add_argument(
        "--evaluation-ranks", type=int, default=1, help="ranks that only evaluate (default: 1)"
    )
    parser.add_argument("--steps", type=int, default=120, help="steps to make (default: 120)")
    parser.add_argument(
        "--every", type=int, default=12, help="steps between two evaluations (default: 12)"
    )


class _StepTimes(NullObserver):
    """Sorts steps by whether an evaluation was under way when they began and when they ended."""

    def __init__(self) -> None:
        self.during: list[float] = []
        self.between: list[float] = []
        self.evaluation_seconds: list[float] = []
        self.summary: RunSummary | None = None
        self._num_under_way = 0
        self._was_under_way = False

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None:
        self._num_under_way += 1

    def evaluation(self, report: EvaluationReport) -> None:
        self._num_under_way -= 1
        self.evaluation_seconds.append(report.seconds)

    def step(self, report: StepReport) -> None:
        # reports come one step late: this one began when the one before it was reported
        before, now = self._was_under_way, self._num_under_way > 0
        self._was_under_way = now
        if report.step <= NUM_SETTLING_STEPS or before != now:
            return
        seconds = report.step_time_seconds - report.data_wait_seconds
        (self.during if now else self.between).append(seconds)

    def run_end(self, summary: RunSummary) -> None:
        self.summary = summary


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Times of the first rank; nothing on the others."""
    launch = read_launch_info()
    if launch.world_size <= args.evaluation_ranks:
        raise BenchmarkError(
            f"{launch.world_size} ranks, of which {args.evaluation_ranks} evaluate: none is left to train; "
            "torchrun --nproc-per-node 2 -m benchmark perf evaluation"
        )
    config = _configuration(args)
    try:
        device = resolve_device(config.device, local_rank=launch.local_rank)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    cores = _take_a_core(launch) if device.type == "cpu" else None
    times = _StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        try:
            paths = RunPaths(output_dir=Path(folder))
            Trainer(
                config,
                data=ShardDataSource(args.data_dir),
                paths=paths,
                seed=0,
                observer=times,
                launch=launch,
            ).run()
        except SetupError as error:
            raise BenchmarkError(str(error)) from error
    return {
        "preset": args.preset,
        "num_ranks": launch.world_size,
        "num_evaluation_ranks": args.evaluation_ranks,
        "every_steps": args.every,
        "core_of_rank_0": cores,
        "during": times.during,
        "between": times.between,
        "evaluation_seconds": times.evaluation_seconds,
        "num_waits": None if times.summary is None else times.summary.num_evaluation_waits,
    }


def _configuration(args: argparse.Namespace) -> RunConfig:
    config = build_preset(args.preset)
    return dataclasses.replace(
        config,
        parallel=ParallelConfig(num_evaluation_ranks=args.evaluation_ranks),
        evaluation=dataclasses.replace(
            config.evaluation, every_steps=args.every, target_lddt_ca=1.0
        ),
        checkpoint=CheckpointConfig(every_steps=0),
        max_steps=args.steps,
        # times are of any number of ranks
        global_batch_size=None,
    )


def _take_a_core(launch: LaunchInfo) -> list[int] | None:
    """On a CPU each rank keeps to cores of its own, if there are enough."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // launch.ranks_per_node
    if share == 0:
        return None
    own = cores[launch.local_rank * share : (launch.local_rank + 1) * share]
    os.sched_setaffinity(0, own)
    return own


def report(metrics: dict[str, Any]) -> str:
    """One table and the ratio."""
    if not metrics["during"] or not metrics["between"]:
        raise BenchmarkError(
            f"{len(metrics['during'])} steps were made during evaluations and {len(metrics['between'])} between them; change --every"
        )
    during, between = TimingStats.of(metrics["during"]), TimingStats.of(metrics["between"])
    rows = [
        [
            name,
            str(timing_stats.count),
            f"{timing_stats.median:.4f}",
            f"{timing_stats.low:.4f} to {timing_stats.high:.4f}",
        ]
        for name, timing_stats in (("during evaluations", during), ("between evaluations", between))
    ]
    return "\n".join(
        [
            f"steps of {metrics['preset']} on {metrics['num_ranks'] - metrics['num_evaluation_ranks']} ranks while "
            f"{metrics['num_evaluation_ranks']} evaluate, seconds without waiting for data",
            table(rows, header=["", "steps", "median s", "spread"]),
            f"ratio of the medians {during.median / between.median:.3f}; {len(metrics['evaluation_seconds'])} evaluations of "
            f"{TimingStats.of(metrics['evaluation_seconds']).median:.2f} s; training waited {metrics['num_waits']} times",
        ]
    )
