"""`perf counts`: count bytes and operations of a step, with reference and with fused kernels.

With --roofline, count launch by launch what fused kernels need at least on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.can_run import import_with_triton
from benchmark.perf.tools.counting import Counter, Counts, ModuleCounts, count_each
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.options import add_preset
from benchmark.perf.tools.perf_record import json_key
from benchmark.perf.tools.roofline import EFFICIENCIES, RooflineModel, read_efficiencies
from benchmark.perf.tools.roofline_count import (
    RooflineMetrics,
    build_metrics,
    check_memory,
    compile_kernels,
    fast_config,
    trace_steps,
)
from benchmark.perf.tools.roofline_report import format_roofline, roofline_headline
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset
from openfold_opt.kernels.chips import CHIPS, chip_named
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import with_evoformer_blocks

EXTRA_PASSES = 1.5
"""Mean number of recycling iterations of a step, drawn uniformly from 0 to 3."""
VARIANTS = (("reference", "tf32"), ("reference", "bf16"), ("triton", "bf16"))
"""Kernels and precisions to compare; tf32 counts as float32."""
_GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class VariantCounts:
    """Counts of a step with one implementation in one precision."""

    both: Counts = json_key("forward and backward")
    """Forward pass, loss and backward pass."""
    forward: Counts
    parts: dict[str, ModuleCounts]
    """Counts of each part of the model."""
    evoformer_block: dict[str, ModuleCounts] = json_key("Evoformer block")
    """Counts of an Evoformer block and its modules."""

    def of_step(
        self, quantity: Literal["bytes", "flops", "launches"], num_recycling_iterations: float
    ) -> float:
        """Return a quantity of a step with a mean number of recycling iterations."""
        return getattr(self.both, quantity) + num_recycling_iterations * getattr(
            self.forward, quantity
        )


@dataclass(frozen=True, kw_only=True)
class CountMetrics:
    """Counts of one preset."""

    preset: str
    extra_passes: float
    """Mean number of recycling iterations."""
    variants: dict[str, VariantCounts] = field(default_factory=dict)
    """Counts by kernels and precision; empty with --roofline."""
    roofline: RooflineMetrics | None = None
    """Only with --roofline."""


METRICS = CountMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_preset(parser, default="mlperf_reference")
    add = parser.add_argument
    add(
        "--roofline",
        action="store_true",
        help=(
            "instead, count fused bf16 kernels launch by launch, compile them for --device, and "
            "print the least time of a step, an estimate, and what each kernel's machine code says"
        ),
    )
    names = [chip.name for chip in CHIPS]
    add("--device", default="h200", choices=names, help="with --roofline: GPU (default: h200)")
    add("--dap", type=int, default=1, metavar="P", help="with --roofline: GPUs of a sample")
    add(
        "--efficiencies",
        type=Path,
        metavar="FILE",
        help="with --roofline: JSON file of the share of the rates that each class reaches",
    )


def measure(args: argparse.Namespace) -> CountMetrics:
    """Count the step, the model's parts and an Evoformer block's modules, for each variant."""
    import_with_triton("openfold_opt.kernels.triton.launching")
    config = build_preset(args.preset)
    if args.roofline:
        return CountMetrics(
            preset=args.preset,
            extra_passes=config.data.max_recycling_iterations / 2,
            roofline=_measure_roofline(args, config),
        )
    return CountMetrics(
        preset=args.preset,
        extra_passes=EXTRA_PASSES if config.data.max_recycling_iterations else 0.0,
        variants={
            f"{kernels} {precision}": _count_by_blocks(config, kernels, precision)
            for kernels, precision in VARIANTS
        },
    )


def _measure_roofline(args: argparse.Namespace, config: RunConfig) -> RooflineMetrics:
    if args.dap < 1:
        raise BenchmarkError(f"--dap {args.dap}: expected at least 1")
    chip = chip_named(args.device)
    efficiencies = (
        EFFICIENCIES if args.efficiencies is None else read_efficiencies(args.efficiencies)
    )
    config = fast_config(config, dap_size=args.dap)
    check_memory(config, chip)
    traces = trace_steps(config)
    model = RooflineModel(
        chip=chip,
        rates=chip.sustained,
        efficiencies=efficiencies,
        code=compile_kernels(traces, chip),
    )
    return build_metrics(config, traces, model)


def _count_by_blocks(config: RunConfig, kernels: str, precision: str) -> VariantCounts:
    """Count with one and two Evoformer blocks, and extrapolate: every block adds the same.

    The first step creates constants that later steps reuse, so one step runs before.
    """
    num_blocks = config.model.evoformer_stack.num_blocks
    MetaStep.build(with_evoformer_blocks(config, 1), kernels=kernels, precision=precision).run()
    one, two = (
        _count_variant(with_evoformer_blocks(config, number), kernels, precision)
        for number in (1, 2)
    )
    return _extrapolate(one, two, num_blocks - 1)


def _extrapolate(one: Any, two: Any, further: int) -> Any:
    """Return one + further * (two - one) for all numbers in nested dataclasses and dicts."""
    if isinstance(one, int):
        return one + further * (two - one)
    if isinstance(one, dict):
        return {name: _extrapolate(value, two[name], further) for name, value in one.items()}
    return type(one)(**_extrapolate(vars(one), vars(two), further))


def _count_variant(config: RunConfig, kernels: str, precision: str) -> VariantCounts:
    step = MetaStep.build(config, kernels=kernels, precision=precision)
    with Counter() as whole:
        step.run()
    parts = dict(step.model.named_children())
    block = step.model.evoformer_stack.blocks[0]
    modules = {name: module for name, module in block.named_children() if name != "core"} | dict(
        block.core.named_children()
    )
    with Counter() as forward:
        step.forward()
    return VariantCounts(
        both=whole.counts,
        forward=forward.counts,
        parts=_named(step.run, parts),
        evoformer_block=_named(step.run, {"whole block": block} | modules),
    )


def _named(run: Callable[[], Any], modules: dict[str, nn.Module]) -> dict[str, ModuleCounts]:
    return dict(zip(modules, count_each(run, modules.values()), strict=True))


def report(metrics: CountMetrics) -> str:
    """Format tables of the step, the parts of the model and the modules of a block."""
    if metrics.roofline is not None:
        return format_roofline(metrics.preset, metrics.roofline)
    variants, extra = metrics.variants, metrics.extra_passes
    rows = [
        [
            name,
            f"{counts.of_step('bytes', extra) / _GIGA:.0f}",
            f"{counts.of_step('flops', extra) / 1e12:.1f}",
            f"{counts.of_step('launches', extra):,.0f}",
        ]
        for name, counts in variants.items()
    ]
    text = [
        f"step of {metrics.preset} with {extra} recycling iterations, optimizer not counted",
        table(rows, header=["kernels", "GB", "TFLOP", "launches"]),
    ]
    for title, modules in (
        ("parts", {name: counts.parts for name, counts in variants.items()}),
        ("Evoformer block", {name: counts.evoformer_block for name, counts in variants.items()}),
    ):
        text += [f"{title}: GB of forward and backward", _by_module(modules)]
    return "\n\n".join(text)


def _by_module(variants: Mapping[str, Mapping[str, ModuleCounts]]) -> str:
    rows = []
    for name in next(iter(variants.values())):
        counts = [modules[name] for modules in variants.values()]
        both = [(each.forward + each.backward).bytes for each in counts]
        rows.append(
            [name, *(f"{count / _GIGA:.2f}" for count in both), f"{both[-2] / both[-1]:.1f}"]
        )
    return table(rows, header=["module", *variants, "ratio in bf16"])


def headline(metrics: CountMetrics) -> str:
    """Summarize the bytes of each variant, and the operations."""
    if metrics.roofline is not None:
        return roofline_headline(metrics.preset, metrics.roofline)
    extra = metrics.extra_passes
    volumes = [
        f"{name} {counts.of_step('bytes', extra) / _GIGA:,.0f} GB"
        for name, counts in metrics.variants.items()
    ]
    flops = next(iter(metrics.variants.values())).of_step("flops", extra)
    return (
        f"{metrics.preset}: one sample's step with {extra} recycling iterations moves "
        f"{', '.join(volumes)}; {flops / 1e12:.1f} TFLOP"
    )
