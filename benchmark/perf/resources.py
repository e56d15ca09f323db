"""`perf resources`: compile every kernel that a training step launches, without a GPU, and read what the compiler gave it."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

from benchmark.errors import BenchmarkError
from benchmark.perf.meta_step import META, MetaStep
from benchmark.perf.needs_triton import import_with_triton
from benchmark.perf.spread import table
from benchmark.presets import build_preset, preset_names
from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.train.precision import PRECISIONS, matmul_precision

CAPABILITIES = (80, 90, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--preset", default="mlperf_reference", choices=preset_names(), help="whose shapes (default: mlperf_reference)")
    parser.add_argument(
        "--capability", type=int, nargs="+", default=CAPABILITIES, choices=CAPABILITIES, help="compute capabilities (default: all)"
    )
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=PRECISIONS, help="default: bf16")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Resources by capability and precision."""
    compiling = import_with_triton("openfold_opt.kernels.triton.compiling")
    if import_with_triton("openfold_opt.kernels.triton.launch").IS_INTERPRETED:
        raise BenchmarkError("TRITON_INTERPRET is set: Triton interprets kernels and cannot compile them; unset it")
    config = build_preset(args.preset)
    figures: dict[str, Any] = {"preset": args.preset, "kernels": {}}
    for precision in args.precision:
        with matmul_precision(precision):
            launches = step_launches(MetaStep.build(config, kernels="triton", precision=precision))
        for capability in args.capability:
            try:
                found = compiling.compile_launches(launches, capability)
            except ValueError as error:
                raise BenchmarkError(str(error)) from error
            figures["kernels"][f"sm_{capability} {precision}"] = [dataclasses.asdict(kernel) for kernel in found]
    return figures


def step_launches(step: MetaStep) -> list[Any]:
    """All launches of a step and of the optimiser."""
    launches = []
    with import_with_triton("openfold_opt.kernels.triton.launch").launches_on_meta(lambda *launch: launches.append(launch)):
        step.run()
        _update_weights(step, sum(parameter.numel() for parameter in step.model.parameters()))
    return launches


def _update_weights(step: MetaStep, size: int) -> None:
    flat, scalar = torch.empty(size, device=META), torch.zeros((), device=META)
    count = torch.zeros((), dtype=torch.float64, device=META)
    state = WeightState(
        values=flat, exp_avg=flat, exp_avg_sq=flat, average=flat, num_steps=count, num_updates=scalar, compute_copy=flat.bfloat16()
    )
    constants = WeightUpdateConstants(beta_1=0.9, beta_2=0.999, epsilon=1e-6, max_norm=0.1, decay_rate=0.9)
    step.plan.kernels.weight_update(state, flat, learning_rate=count, flag=scalar, constants=constants)


def report(figures: dict[str, Any]) -> str:
    """One table for each capability and precision."""
    parts = []
    for name, kernels in figures["kernels"].items():
        columns = ("kernel", "registers", "shared_bytes", "stack_bytes", "spills", "signature")
        rows = [[str(kernel[column]) for column in columns] for kernel in kernels]
        parts.append(f"{name}: {len(kernels)} kernels of a step of {figures['preset']}\n\n{table(rows, header=list(columns))}")
    return "\n\n".join(parts)
