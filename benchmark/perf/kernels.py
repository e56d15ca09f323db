"""`perf kernels`: time each operation at the shapes of training.

The baselines are its reference kernel, torch.compile of the reference, and other libraries.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools import against
from benchmark.perf.tools.attention_launches import time_residual_attention
from benchmark.perf.tools.kernel_peers import (
    PEERS,
    attention_peers,
    compile_for_processor,
    core_leaves,
)
from benchmark.perf.tools.kernel_times import Call, CaseTimes, time_case
from benchmark.perf.tools.limits import measure_copy, measure_matmul
from benchmark.perf.tools.options import add_count, add_threads
from benchmark.perf.tools.step_calls import StepCalls, time_step_calls
from benchmark.perf.tools.timing_stats import TimingStats, table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.kernels.arguments import Arguments, LeastBytes, TensorMaker, least_bytes
from openfold_opt.kernels.interface import KernelConfig, KernelSet, Precision
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.reference.attention import attention as reference_attention
from openfold_opt.kernels.reference.self_attention import SelfAttentionShapes
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.parallel.launch import read_launch_info
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.operation_shapes import PlacedOperation, operations_of_step
from openfold_opt.train.precision import PRECISIONS, activation_dtype, matmul_precision


@dataclass(frozen=True, kw_only=True)
class KernelMetrics(against.Setting):
    """Times of the operations, and speeds that this machine reaches."""

    cases: list[CaseTimes]
    failures: list[str] = field(default_factory=list)
    """A line for each case in which our kernel or the reference fails."""
    copy_bytes_per_second: float
    matmul_flops_per_second: float
    against: str | None = None
    """Source of the other kernels that were timed."""
    threads: int | None = None
    num_processes: int = 1
    """Processes that measured at the same time."""
    calls: list[StepCalls] | None = None
    """Calls of a step on a CPU, with --calls."""


METRICS = KernelMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        choices=preset_names(),
        help="preset for the shapes (default: mlperf_reference on a GPU, middle on a CPU)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: bf16 on a GPU, fp32 on a CPU"
    )
    parser.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help="only cases whose operation or location contains TEXT",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="PEER",
        choices=PEERS,
        help=f"attentions of other libraries to skip, of {', '.join(PEERS)}",
    )
    add_count(parser, "--repeats", default=20, what="timed runs of each kernel")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also measure torch.compile of the reference kernels; compiling takes a minute or two",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RECORD|CHECKOUT",
        help=(
            "other kernels to compare with: a record of this command, or another checkout, whose "
            "kernels run in a separate process, alternating with ours"
        ),
    )
    add_count(
        parser,
        "--rounds",
        default=2,
        what="rounds in which our kernels and those of a checkout alternate",
    )
    add_threads(parser)
    parser.add_argument(
        "--calls",
        action="store_true",
        help="on a CPU, also time every PyTorch call of a step of the preset, for `plan systems "
        "--calibrate`; several processes of torchrun measure at the same time, as ranks compute",
    )


def measure(args: argparse.Namespace) -> KernelMetrics:
    """Time forward, and forward plus backward, of every case, and measure the machine's limits.

    The record is saved after every case.
    """
    if min(args.repeats, args.threads, args.rounds) < 1:
        raise BenchmarkError("--repeats, --threads and --rounds must be at least 1")
    device = resolve_device("auto", local_rank=0)
    torch.set_num_threads(args.threads)
    setting = _setting(args, device)
    precision = setting.precision
    if args.calls and (device.type != "cpu" or precision != "fp32"):
        raise BenchmarkError(f"--calls needs a CPU and --precision fp32, not {device}, {precision}")
    config = build_preset(setting.preset)
    shapes = config.model.kernel_shapes()
    try:
        ours = build_kernel_set(KernelConfig.all("auto"), device, shapes, precision=precision)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    recorded = None if args.against is None else against.check(args.against, setting)
    metrics = KernelMetrics(
        **vars(setting),
        cases=[],
        copy_bytes_per_second=measure_copy(device=device),
        matmul_flops_per_second=measure_matmul(precision, device=device.type, threads=args.threads),
        threads=args.threads,
        num_processes=read_launch_info().world_size,
        calls=time_step_calls(config) if args.calls else None,
    )
    args.record.save(metrics)
    cases = _Cases(config, precision, device=device, only=args.only)
    with matmul_precision(precision):
        for case in tracked(cases, what="kernels", unit="case"):
            _add_case(_measure_case(case, getattr(ours, case.operation), args), metrics, args)
            if isinstance(case.shapes, SelfAttentionShapes):
                _add_case(_measure_attention_core(case, case.shapes, args), metrics, args)
                if ours.residual_attention is not None:
                    found = time_residual_attention(
                        ours.residual_attention,
                        ours,
                        case.shapes,
                        where=case.where,
                        make=TensorMaker(device=device, dtype=case.dtype),
                        repeats=args.repeats,
                    )
                    _add_case(found, metrics, args)
    if not metrics.cases:
        raise BenchmarkError(
            f"--only {args.only}: no operation or location contains this text; without --only all "
            "cases run"
        )
    if recorded is not None:
        metrics = dataclasses.replace(metrics, against=recorded.source)
        against.add_times(recorded, metrics.cases)
    elif args.against is not None:
        metrics = dataclasses.replace(metrics, against=str(args.against))
        with matmul_precision(precision):
            _alternate(ours, cases, metrics, args)
    return metrics


def _setting(args: argparse.Namespace, device: torch.device) -> against.Setting:
    """Return the settings; an option that was not given has the default of the device."""
    on_gpu = device.type == "cuda"
    return against.Setting(
        preset=args.preset or ("mlperf_reference" if on_gpu else "middle"),
        precision=args.precision or ("bf16" if on_gpu else "fp32"),
        device=str(device),
    )


@dataclass(frozen=True, kw_only=True)
class _Case(PlacedOperation):
    """An operation of the model and its arguments."""

    arguments: Arguments
    least_bytes: LeastBytes
    dtype: torch.dtype


class _Cases:
    """Operations with a backward pass; arguments are made one case at a time, some take gigabytes.

    only: text that the operation or the location contains.
    """

    def __init__(
        self, config: RunConfig, precision: Precision, *, device: torch.device, only: str
    ) -> None:
        self._device, self._dtype = device, activation_dtype(precision)
        self._places = [
            place
            for place in operations_of_step(config)
            if OPERATIONS[place.operation].has_gradient
            and (only in place.operation or only in place.where)
        ]

    def __iter__(self) -> Iterator[_Case]:
        make = TensorMaker(device=self._device, dtype=self._dtype)
        for place in self._places:
            yield _Case(
                **vars(place),
                arguments=place.shapes.arguments(make),
                least_bytes=OPERATIONS[place.operation].bytes(place.shapes, self._dtype),
                dtype=self._dtype,
            )


def _alternate(
    ours: KernelSet, cases: _Cases, metrics: KernelMetrics, args: argparse.Namespace
) -> None:
    """Alternate the other checkout's kernels with ours, whose first round is already in metrics."""
    options = ["--preset", metrics.preset, "--precision", metrics.precision]
    options += ["--only", args.only]
    options += ["--repeats", str(args.repeats), "--threads", str(args.threads)]
    # Time only the kernels of the checkout, no other libraries.
    options += ["--without", *PEERS]
    by_name = {(case.operation, case.where): case for case in metrics.cases}
    for number in range(args.rounds):
        for case in cases if number else ():
            work = case.arguments.call(getattr(ours, case.operation))
            repeated = _time_works({"ours": work}, case, args)
            before = by_name[case.operation, case.where].seconds
            if "ours" in before.keys() & repeated.seconds.keys():
                before["ours"] += repeated.seconds["ours"]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        theirs = against.measure_checkout(args.against, options, metrics)
        against.add_times(theirs, metrics.cases)
        args.record.save(metrics)


def _add_case(case: CaseTimes, metrics: KernelMetrics, args: argparse.Namespace) -> None:
    """Add a case to the record, and a failure if our kernel or the reference has no time."""
    metrics.cases.append(case)
    for side in ("ours", "plain"):
        if side in case.unavailable:
            metrics.failures.append(f"{case.label}, {side}: {case.unavailable[side]}")
    args.record.save(metrics)


def _measure_case(case: _Case, ours: Call, args: argparse.Namespace) -> CaseTimes:
    reference = case.arguments.call(OPERATIONS[case.operation].reference)
    sides = {"ours": case.arguments.call(ours), "plain": reference}
    if args.compile:
        # Compilations of earlier cases count toward Dynamo's recompilation limit.
        torch._dynamo.reset()
        sides["compiled"] = compile_for_processor(reference, fullgraph=True)
    return _time_works(sides, case, args)


def _time_works(sides: dict[str, Call], case: _Case, args: argparse.Namespace) -> CaseTimes:
    """Time functions of the case's leaves."""
    leaves = case.arguments.leaves
    return time_case(
        {name: partial(work, *leaves) for name, work in sides.items()},
        leaves,
        operation=case.operation,
        where=case.where,
        least_bytes=case.least_bytes,
        repeats=args.repeats,
    )


def _measure_attention_core(
    case: _Case, shapes: SelfAttentionShapes, args: argparse.Namespace
) -> CaseTimes:
    """Time attention without the projections, which other libraries do not have."""
    torch._dynamo.reset()
    mask = case.arguments.others[0]
    projected, bias = core_leaves(shapes, dtype=case.dtype, device=mask.device)
    leaves = (projected,) if bias is None else (projected, bias)

    def ours_or_reference(attention: Call) -> Call:
        return lambda: attention(
            projected, num_heads=shapes.num_heads, mask=mask, mask_inf=1e9, bias=bias
        )

    peers = attention_peers(shapes, projected, bias)
    works = {"plain": ours_or_reference(reference_attention)}
    works |= {name: work for name, work in peers.items() if name not in args.without}
    if mask.device.type == "cuda":
        fused = importlib.import_module("openfold_opt.kernels.triton.attention.attention").attention
        works = {"ours": ours_or_reference(fused)} | works
    core = Arguments(leaves=leaves, others=(mask,), call=ours_or_reference)
    # The result has the size of q, a fourth of the projections.
    result = projected[..., : projected.shape[-1] // 4]
    return time_case(
        works,
        leaves,
        operation="attention core",
        where=case.where,
        least_bytes=least_bytes(core, (result,)),
        repeats=args.repeats,
    )


def report(metrics: KernelMetrics) -> str:
    """Format a row for each case: our time, relative bandwidth, relative times of the others."""
    sides = [name for case in metrics.cases for name in case.seconds]
    others = [name for name in dict.fromkeys(sides) if name != "ours"]
    rows, remarks = [], []
    for case in metrics.cases:
        remarks += [f"{case.label}: no {name}: {why}" for name, why in case.unavailable.items()]
        for direction, label in (("forward", "forward"), ("both", "forward and backward")):
            cells = _cells(case, direction, others, metrics.copy_bytes_per_second)
            rows.append([f"{case.operation}, {case.where}, {label}", *cells])
    limits = (
        f"{metrics.preset} in {metrics.precision} on {metrics.device}; copy "
        f"{metrics.copy_bytes_per_second / 1e9:.1f} GB/s, matrix product "
        f"{metrics.matmul_flops_per_second / 1e12:.2f} TFLOP/s. 'of copy': the least bytes that "
        "have to move, divided by our time, relative to the copy; above 100% if data is cached. "
        "Columns after it: times relative to ours; 'plain' is the reference kernel, 'separate' the "
        "operations that residual_attention replaces."
    )
    if metrics.against is not None:
        limits += f"\nagainst: the kernels of {metrics.against}"
    return "\n".join(
        [limits, "", table(rows, header=["operation", "ours, ms", "of copy", *others]), *remarks]
    )


def _cells(
    case: CaseTimes, direction: str, others: list[str], copy_bytes_per_second: float
) -> list[str]:
    """Return our time, our bandwidth relative to a copy, and the others' times relative to ours."""
    stats_of = {
        name: TimingStats.of(getattr(times, direction)) for name, times in case.seconds.items()
    }
    ours = stats_of.get("ours")
    if ours is None:
        return ["", "", *(_milliseconds(stats_of.get(name)) for name in others)]
    relative_bandwidth = getattr(case.bytes, direction) / ours.median / copy_bytes_per_second
    ratios = [
        f"{stats_of[name].ratio_to(ours).median:.2f}x" if name in stats_of else ""
        for name in others
    ]
    return [ours.text(3, scale=1e3), f"{relative_bandwidth:.0%}", *ratios]


def _milliseconds(stats: TimingStats | None) -> str:
    return "" if stats is None else f"{1e3 * stats.median:.3f} ms"


def headline(metrics: KernelMetrics) -> str:
    """Summarize the ratios of the reference kernels' times to ours."""
    both = [
        {name: TimingStats.of(times.both) for name, times in case.seconds.items()}
        for case in metrics.cases
    ]
    ratios = [
        stats_of["plain"].ratio_to(stats_of["ours"]).median
        for stats_of in both
        if {"ours", "plain"} <= stats_of.keys()
    ]
    stats = TimingStats.of(ratios)
    return (
        f"{metrics.preset}, {metrics.precision} on {metrics.device}: reference kernels "
        f"take {stats.low:.2f}x to {stats.high:.2f}x (median {stats.median:.2f}x) the time of "
        f"ours, forward and backward, {stats.count} cases"
    )
