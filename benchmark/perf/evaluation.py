"""`perf evaluation`: measure how evaluation on dedicated ranks slows the training ranks.

Compares the times of steps during evaluations with those between evaluations.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.options import add_count, add_data_dir, add_preset
from benchmark.perf.tools.timing_stats import TimingStats, table
from benchmark.presets import build_preset
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.train.build_run import RunPaths, resolve_device
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.errors import SetupError
from openfold_opt.train.observer import EvaluationReport, NullObserver, RunSummary, StepReport
from openfold_opt.train.trainer import Trainer

NUM_SETTLING_STEPS = 5
"""First steps, which are slower and are left out."""


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics:
    """Metrics of `perf evaluation`. Times of steps are without the wait for data."""

    preset: str
    num_ranks: int
    num_evaluation_ranks: int
    every_steps: int
    """Steps between two evaluations."""
    core_of_rank_0: list[int] | None
    """Cores that rank 0 is bound to; None if it is not bound."""
    during: list[float]
    """Seconds of each step that ran entirely during an evaluation."""
    between: list[float]
    """Seconds of each step that ran entirely between evaluations."""
    evaluation_seconds: list[float]
    num_waits: int | None = None
    """How often training waited for an evaluation."""

    @property
    def ratio(self) -> TimingStats:
        """Time of a step during evaluations divided by that of a step between them."""
        return TimingStats.of(self.during).ratio_to(TimingStats.of(self.between))


METRICS = EvaluationMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Train a preset with some ranks that only evaluate, and compare the times of steps during "
        "evaluations with those between evaluations. Start with torchrun --nproc-per-node 2 -m "
        "benchmark perf evaluation (or more ranks)."
    )
    add_preset(parser, default="demo_one_phase", what="preset to train")
    add_data_dir(parser)
    add_count(parser, "--evaluation-ranks", default=1, what="ranks that only evaluate")
    add_count(parser, "--steps", default=120, what="training steps")
    add_count(parser, "--every", default=12, what="steps between two evaluations")


class _StepTimes(NullObserver):
    """Collect times of steps entirely during and entirely between evaluations, separately."""

    def __init__(self) -> None:
        self.during: list[float] = []
        self.between: list[float] = []
        self.evaluation_seconds: list[float] = []
        self.summary: RunSummary | None = None
        self._num_running = 0
        self._was_running = False

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None:
        self._num_running += 1

    def evaluation(self, report: EvaluationReport) -> None:
        self._num_running -= 1
        self.evaluation_seconds.append(report.seconds)

    def step(self, report: StepReport) -> None:
        # Reports come one step late: this step began when the previous one was reported.
        before, now = self._was_running, self._num_running > 0
        self._was_running = now
        if report.step <= NUM_SETTLING_STEPS or before != now:
            return
        seconds = report.step_time_seconds - report.data_wait_seconds
        (self.during if now else self.between).append(seconds)

    def run_end(self, summary: RunSummary) -> None:
        self.summary = summary


def measure(args: argparse.Namespace) -> EvaluationMetrics:
    """Train, and return the step times; only rank 0 observes the run and has any."""
    launch = read_launch_info()
    if launch.world_size <= args.evaluation_ranks:
        raise BenchmarkError(
            f"{launch.world_size} ranks, of which {args.evaluation_ranks} evaluate: none is left "
            "to train; start more ranks, for example torchrun --nproc-per-node 2 -m benchmark "
            "perf evaluation"
        )
    config = _configuration(args)
    try:
        device = resolve_device(config.device, local_rank=launch.local_rank)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    cores = _bind_to_cores(launch) if device.type == "cpu" else None
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
    return EvaluationMetrics(
        preset=args.preset,
        num_ranks=launch.world_size,
        num_evaluation_ranks=args.evaluation_ranks,
        every_steps=args.every,
        core_of_rank_0=cores,
        during=times.during,
        between=times.between,
        evaluation_seconds=times.evaluation_seconds,
        num_waits=None if times.summary is None else times.summary.num_evaluation_waits,
    )


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
        # Any number of ranks may run this, so the preset's global batch size is not required.
        global_batch_size=None,
        # Train without phases, because each phase has another batch and another end.
        phases=(),
    )


def _bind_to_cores(launch: LaunchInfo) -> list[int] | None:
    """Bind this rank to its share of the cores; return None if there are fewer cores than ranks."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // launch.ranks_per_node
    if share == 0:
        return None
    own = cores[launch.local_rank * share : (launch.local_rank + 1) * share]
    os.sched_setaffinity(0, own)
    return own


def report(metrics: EvaluationMetrics) -> str:
    """Format the step times and their ratio.

    Raises:
        BenchmarkError: No steps were made during evaluations, or none between them.
    """
    if not metrics.during or not metrics.between:
        raise BenchmarkError(
            f"{len(metrics.during)} steps were made during evaluations and "
            f"{len(metrics.between)} between them, expected some of both; change --every"
        )
    rows = []
    for name, seconds in (
        ("during evaluations", metrics.during),
        ("between evaluations", metrics.between),
    ):
        stats = TimingStats.of(seconds)
        times = [f"{stats.median:.4f}", f"{stats.low:.4f} to {stats.high:.4f}"]
        rows.append([name, str(stats.count), *times])
    return "\n".join(
        [
            f"steps of {metrics.preset} on {metrics.num_ranks - metrics.num_evaluation_ranks} "
            f"training and {metrics.num_evaluation_ranks} evaluation ranks, seconds without the "
            "wait for data",
            table(rows, header=["", "steps", "median, s", "range, s"]),
            f"ratio of the medians {metrics.ratio.median:.3f}; "
            f"{len(metrics.evaluation_seconds)} evaluations of "
            f"{TimingStats.of(metrics.evaluation_seconds).median:.2f} s; training waited "
            f"{metrics.num_waits} times",
        ]
    )


def headline(metrics: EvaluationMetrics) -> str:
    """Return one line with the ratio of the step times."""
    return (
        f"{metrics.preset}: a step while other ranks ({metrics.num_evaluation_ranks}) evaluate "
        f"takes {metrics.ratio.median:.3f}x the time of a step between evaluations"
    )
