"""`perf counts`: count bytes and operations of a step, with reference and with fused kernels."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from benchmark.perf.tools.counting import Counter, Counts, count_each
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.needs_triton import import_with_triton
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset, preset_names
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import with_evoformer_blocks

EXTRA_PASSES = 1.5
"""Mean number of recycling iterations of a step, drawn uniformly from 0 to 3."""
VARIANTS = (("reference", "tf32"), ("reference", "bf16"), ("triton", "bf16"))
"""Kernels and precisions to compare; tf32 counts as float32."""
_GIGA = 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        default="mlperf_reference",
        choices=preset_names(),
        help="preset for the shapes (default: mlperf_reference)",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Count the step, the model's parts and an Evoformer block's modules, for each variant."""
    import_with_triton("openfold_opt.kernels.triton.operations")
    config = build_preset(args.preset)
    metrics: dict[str, Any] = {
        "preset": args.preset,
        "extra_passes": EXTRA_PASSES if config.data.max_recycling_iterations else 0.0,
        "variants": {},
    }
    for kernels, precision in VARIANTS:
        metrics["variants"][f"{kernels} {precision}"] = _count_by_blocks(config, kernels, precision)
    return metrics


def _count_by_blocks(config: RunConfig, kernels: str, precision: str) -> dict[str, Any]:
    """Count with one and two Evoformer blocks, and extrapolate: every block adds the same."""
    num_blocks = config.model.evoformer_stack.num_blocks
    one, two = (
        _count_variant(with_evoformer_blocks(config, number), kernels, precision)
        for number in (1, 2)
    )
    return _extrapolate(one, two, num_blocks - 1)


def _extrapolate(one: Any, two: Any, further: int) -> Any:
    """Return one + further * (two - one) for all numbers in nested dicts."""
    if isinstance(one, dict):
        return {name: _extrapolate(value, two[name], further) for name, value in one.items()}
    return one + further * (two - one)


def _count_variant(config: RunConfig, kernels: str, precision: str) -> dict[str, Any]:
    step = MetaStep.build(config, kernels=kernels, precision=precision)
    with Counter() as whole:
        step.run()
    parts = dict(step.model.named_children())
    block = step.model.evoformer_stack.blocks[0]
    modules = {name: module for name, module in block.named_children() if name != "core"} | dict(
        block.core.named_children()
    )
    return {
        "forward and backward": dataclasses.asdict(whole.counts),
        "forward": dataclasses.asdict(_count_forward(step)),
        "parts": _named(step.run, parts),
        "Evoformer block": _named(step.run, {"whole block": block} | modules),
    }


def _count_forward(step: MetaStep) -> Counts:
    with Counter() as counter:
        step.forward()
    return counter.counts


def _named(run: Callable[[], Any], modules: dict[str, nn.Module]) -> dict[str, Any]:
    both = count_each(run, modules.values())
    return {
        name: {"forward": dataclasses.asdict(forward), "backward": dataclasses.asdict(backward)}
        for name, (forward, backward) in zip(modules, both, strict=True)
    }


def report(metrics: dict[str, Any]) -> str:
    """Format tables of the step, the parts of the model and the modules of a block."""
    variants = metrics["variants"]
    extra = metrics["extra_passes"]
    rows = []
    for name, counts in variants.items():
        total = {
            key: counts["forward and backward"][key] + extra * counts["forward"][key]
            for key in ("bytes", "flops", "launches")
        }
        rows.append(
            [
                name,
                f"{total['bytes'] / _GIGA:.0f}",
                f"{total['flops'] / 1e12:.1f}",
                f"{total['launches']:,.0f}",
            ]
        )
    text = [
        f"step of {metrics['preset']} with {extra} recycling iterations, optimizer not counted",
        table(rows, header=["kernels", "GB", "TFLOP", "launches"]),
    ]
    for title in ("parts", "Evoformer block"):
        text += [f"{title}: GB of forward and backward", _by_module(variants, title)]
    return "\n\n".join(text)


def _by_module(variants: dict[str, Any], title: str) -> str:
    names = list(next(iter(variants.values()))[title])
    rows = []
    for name in names:
        both = [
            sum(counts[title][name][direction]["bytes"] for direction in ("forward", "backward"))
            for counts in variants.values()
        ]
        rows.append(
            [name, *(f"{count / _GIGA:.2f}" for count in both), f"{both[-2] / both[-1]:.1f}"]
        )
    return table(rows, header=["module", *variants, "ratio in bf16"])
