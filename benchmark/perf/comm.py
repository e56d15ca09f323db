"""`perf comm`: measure every collective of a training step, and predict it from a latency model."""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.options import add_count, add_preset
from benchmark.perf.tools.perf_record import json_key
from benchmark.perf.tools.step_calls import ShardedStep, time_sharded_steps
from benchmark.perf.tools.timing_stats import TimingStats, table
from benchmark.presets import build_preset
from openfold_opt.model.plan import ALL_BLOCKS
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import barrier
from openfold_opt.parallel.context import ParallelConfig, build_parallel_context, counted_axis
from openfold_opt.parallel.launch import read_launch_info
from openfold_opt.parallel.transfers import AllGather, AllToAll, ReduceScatter
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig

SIZES = (2**10, 2**14, 2**18, 2**20, 2**22, 2**24)
"""Message sizes in bytes per rank, to which latency and bandwidth are fitted."""
ALL_REDUCE = "all-reduce"
FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Time of a kind of collective as a function of the bytes that a rank sends."""

    latency_seconds: float
    bytes_per_second: float

    def seconds(self, sent_bytes: int) -> float:
        """Predict the time of a collective."""
        return self.latency_seconds + sent_bytes / self.bytes_per_second


@dataclass(frozen=True, kw_only=True)
class CollectiveTimes:
    """Times of one collective of a step."""

    what: str
    """What is communicated."""
    kind: str
    """all-gather, reduce-scatter, all-to-all or all-reduce."""
    num_calls: int = json_key("times")
    """Calls in a step."""
    sent_bytes: int
    """Bytes sent by a rank in each call."""
    seconds: list[float]
    """Measured times of a call."""
    predicted_seconds: float

    @property
    def stats(self) -> TimingStats:
        """Statistics of the measured times of a call."""
        return TimingStats.of(self.seconds)


@dataclass(frozen=True, kw_only=True)
class CommMetrics:
    """Metrics of `perf comm`."""

    preset: str
    num_recycling_iterations: int = json_key("passes")
    num_ranks: int
    backend: str
    device: str
    fits: dict[str, Fit]
    """Kind of collective -> its fit."""
    collectives: list[CollectiveTimes]
    sharded_steps: list[ShardedStep] | None = None
    """With --steps."""

    @property
    def total_seconds(self) -> float:
        """Measured time of all calls of a step, without overlap."""
        return sum(each.num_calls * each.stats.median for each in self.collectives)

    @property
    def sent_gigabytes(self) -> float:
        """Data that a rank sends in a step."""
        return sum(each.num_calls * each.sent_bytes for each in self.collectives) / 1e9


METRICS = CommMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Measure every collective of a training step on the ranks of a DAP group. Also predict "
        "each from a latency and a bandwidth that are fitted in the same run to collectives of "
        "other sizes. Start with torchrun --nproc-per-node N -m benchmark perf comm."
    )
    add_preset(parser, default="mlperf_fast", what="preset of the training step")
    add_count(parser, "--passes", default=1, what="number of recycling iterations")
    add_count(parser, "--repeats", default=20, what="timed runs of each collective")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="device (default: auto)"
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="on a CPU, also time small versions of a step that the ranks compute together, for "
        "`plan systems --calibrate`",
    )


def measure(args: argparse.Namespace) -> CommMetrics:
    """Return the metrics. They are equal on all ranks, except for measured and predicted times.

    Raises:
        BenchmarkError: Fewer than two ranks, or options out of range, or no such device.
    """
    config = build_preset(args.preset)
    _check_options(args, config)
    launch = read_launch_info()
    if launch.world_size < 2:
        raise BenchmarkError(
            f"perf comm needs at least two ranks, found {launch.world_size}; start it with "
            "torchrun --nproc-per-node 2 -m benchmark perf comm"
        )
    try:
        device = resolve_device(args.device, local_rank=launch.local_rank)
        context = build_parallel_context(
            ParallelConfig(dap_size=launch.world_size), launch, device=device
        )
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    try:
        calls = step_collectives(
            config, dap_size=context.dap.size, num_recycling_iterations=args.passes
        )
        fits = {
            kind: fit(kind, context.dap, device, args.repeats)
            for kind in sorted({kind for _, kind, _ in calls})
        }
        collectives = [
            CollectiveTimes(
                what=what,
                kind=kind,
                num_calls=times,
                sent_bytes=sent,
                seconds=measure_collective(kind, sent, context.dap, device, args.repeats),
                predicted_seconds=fits[kind].seconds(sent),
            )
            for (what, kind, sent), times in calls.items()
        ]
        sharded_steps = time_sharded_steps(config, context) if args.steps else None
        backend = dist.get_backend(context.dap.process_group)
    finally:
        context.close()
    return CommMetrics(
        preset=args.preset,
        num_recycling_iterations=args.passes,
        num_ranks=launch.world_size,
        backend=backend,
        device=str(device),
        fits=fits,
        collectives=collectives,
        sharded_steps=sharded_steps,
    )


def _check_options(args: argparse.Namespace, config: RunConfig) -> None:
    if args.repeats < 1 or args.passes < 0:
        raise BenchmarkError(
            f"--repeats {args.repeats} --passes {args.passes}: expected at least 1 and 0"
        )
    if args.steps and (args.device != "cpu" or config.precision != "fp32"):
        raise BenchmarkError(
            "--steps needs --device cpu and a preset in fp32, not --device "
            f"{args.device}, {config.precision}"
        )


def step_collectives(
    config: RunConfig, *, dap_size: int, num_recycling_iterations: int
) -> dict[tuple[str, str, int], int]:
    """Count the collectives of one step of one micro-batch, by running it on the meta device.

    Returns:
        (what, kind, bytes sent by a rank) -> number of calls.
    """
    launched: Counter[tuple[str, str, int]] = Counter()

    def count(what: str, kind: str, sent_bytes: int) -> None:
        launched[(what, kind, sent_bytes)] += 1

    axis = dataclasses.replace(counted_axis(config.parallel, size=dap_size), on_launch=count)
    step = MetaStep.build(
        config,
        kernels="reference",
        precision=config.precision,
        num_recycling_iterations=num_recycling_iterations,
        dap=axis,
        # "auto" depends on the memory of a GPU. Its recomputed collectives are not counted.
        num_recomputed_blocks=ALL_BLOCKS if config.recompute is True else 0,
    )
    with torch.device("meta"):
        step.run()
    gradient_bytes = FLOAT_BYTES * sum(parameter.numel() for parameter in step.model.parameters())
    bucket = config.parallel.gradient_bucket_bytes
    # A rank sends 2 (n - 1) / n of the buffer in a ring all-reduce. All buckets count as full.
    ring_factor = 2 * (dap_size - 1) / dap_size
    # To clip each sample, its gradient is all-reduced over the DAP group before the others are.
    num_reductions = 2 if config.optimizer.clip_per == "sample" else 1
    launched[("gradients", ALL_REDUCE, int(ring_factor * min(bucket, gradient_bytes)))] = (
        num_reductions * max(1, math.ceil(gradient_bytes / bucket))
    )
    return dict(launched)


def measure_collective(
    kind: str, sent_bytes: int, axis: AxisGroup, device: torch.device, repeats: int
) -> list[float]:
    """Time a collective in which each rank sends `sent_bytes`.

    The time includes the copies that bring tensors into the layout of the collective and back.

    Returns:
        Seconds of each of `repeats` runs, after two untimed ones.
    """
    work = _collective(kind, sent_bytes, axis, device)
    for _ in range(2):
        work()
    times = []
    for _ in range(repeats):
        barrier(axis)
        _synchronize(device)
        started = time.perf_counter()
        work()
        _synchronize(device)
        times.append(time.perf_counter() - started)
    return times


def _collective(
    kind: str, sent_bytes: int, axis: AxisGroup, device: torch.device
) -> Callable[[], object]:
    size, num_floats = axis.size, max(1, sent_bytes // FLOAT_BYTES)
    # Each branch computes the size of the tensor of which a rank sends `num_floats` elements.
    if kind == "all-gather":
        # The whole part goes to each of the other ranks.
        part = torch.zeros(max(1, num_floats // (size - 1)), device=device)
        transfer = AllGather(axis=axis, dim=0, length=size * part.numel())
        return lambda: transfer.launch(part).wait()
    if kind == ALL_REDUCE:
        # A ring sends 2 (n - 1) / n of the tensor.
        whole = torch.zeros(max(1, num_floats * size // (2 * (size - 1))), device=device)
        return lambda: dist.all_reduce(whole, group=axis.process_group)
    # One row for each rank; a rank sends all rows except its own.
    whole = torch.zeros(size, max(1, num_floats // (size - 1)), device=device)
    if kind == "reduce-scatter":
        reduce = ReduceScatter(axis=axis, dim=0, length=size)
        return lambda: reduce.launch(whole).wait()
    exchange = AllToAll(axis=axis, split_dim=0, join_dim=1, join_length=size * whole.shape[1])
    return lambda: exchange.launch(whole).wait()


def fit(kind: str, axis: AxisGroup, device: torch.device, repeats: int) -> Fit:
    """Fit latency and bandwidth to runs of all SIZES.

    Uses least squares on the relative errors.
    """
    points = [
        (sent, TimingStats.of(measure_collective(kind, sent, axis, device, repeats)).median)
        for sent in SIZES
    ]
    # seconds = latency + sent / bandwidth, each equation divided by its seconds
    design = torch.tensor(
        [[1.0 / seconds, sent / seconds] for sent, seconds in points], dtype=torch.float64
    )
    latency, per_byte = (
        torch.linalg.lstsq(design, torch.ones(len(points), 1, dtype=torch.float64))
        .solution.flatten()
        .tolist()
    )
    return Fit(latency_seconds=max(latency, 0.0), bytes_per_second=1.0 / max(per_byte, 1e-15))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(metrics: CommMetrics) -> str:
    """Format the fitted latencies and bandwidths, and a row for each collective."""
    fits = [
        [kind, f"{1e6 * fitted.latency_seconds:.0f}", f"{fitted.bytes_per_second / 1e9:.2f}"]
        for kind, fitted in metrics.fits.items()
    ]
    collectives = sorted(metrics.collectives, key=lambda each: -each.num_calls * each.stats.median)
    rows = [
        [
            f"{each.what}, {each.kind}",
            str(each.num_calls),
            f"{each.sent_bytes:,}",
            f"{1e3 * each.stats.median:.3f}",
            f"{1e3 * each.stats.low:.3f} to {1e3 * each.stats.high:.3f}",
            f"{1e3 * each.predicted_seconds:.3f}",
        ]
        for each in collectives
    ]
    predicted = sum(each.num_calls * each.predicted_seconds for each in collectives)
    header = ["collective", "calls", "bytes sent", "ms", "range", "predicted ms"]
    return "\n\n".join(
        [
            f"collectives of a step of {metrics.preset} with {metrics.num_recycling_iterations} "
            f"recycling iterations, {metrics.num_ranks} ranks, {metrics.backend} on "
            f"{metrics.device}",
            table(fits, header=["kind", "latency us", "GB/s sent"]),
            table(rows, header=header),
            f"total without overlap: {metrics.total_seconds:.3f} s measured, {predicted:.3f} s "
            f"predicted, {metrics.sent_gigabytes:.3f} GB sent by each rank",
        ]
    )


def headline(metrics: CommMetrics) -> str:
    """Return one line with the total time and volume of the collectives."""
    return (
        f"{metrics.preset}: collectives of a step on {metrics.num_ranks} ranks, "
        f"{metrics.backend}: {metrics.total_seconds:.3f} s without overlap, "
        f"{metrics.sent_gigabytes:.3f} GB sent by each rank"
    )
