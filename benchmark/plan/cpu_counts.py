"""Counts of a training step on a CPU: its PyTorch calls and collectives, traced on device meta."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.call_trace import CallGroup, count_calls
from benchmark.perf.tools.meta_step import META
from benchmark.perf.tools.pass_counts import CPU_KERNELS, PassCounts, count_pass
from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.reference.weight_update import WeightUpdateShapes
from openfold_opt.train.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class CpuStepCounts:
    """A step of a rank with its micro-batch."""

    gradient: PassCounts
    """Last forward pass, losses and backward pass."""
    with_iteration: PassCounts
    """The same with one recycling iteration before it, if the preset has any."""
    optimizer: list[CallGroup]
    num_parameters: int


def count_cpu_step(config: RunConfig) -> CpuStepCounts:
    """Trace a step of a configuration without phases on a rank.

    Raises:
        BenchmarkError: Its kernels or precision are not those of a CPU.
    """
    kernels = set(config.kernels.implementations.values())
    if kernels != {CPU_KERNELS} or config.precision != "fp32":
        raise BenchmarkError(
            f"on a CPU, only steps with {CPU_KERNELS} kernels in fp32 are planned; found kernels "
            f"{sorted(kernels)} in {config.precision}. A preset for "
            "GPUs is planned with the system of a GPU (`plan systems`)"
        )
    gradient, num_parameters = count_pass(config, 0)
    with_iteration = gradient
    if config.data.max_recycling_iterations > 0:
        with_iteration, _ = count_pass(config, 1)
    make = TensorMaker(device=META, dtype=torch.float32)
    update = WeightUpdateShapes(num_parameters=num_parameters).arguments(make)
    return CpuStepCounts(
        gradient=gradient,
        with_iteration=with_iteration,
        optimizer=count_calls(update.call(OPERATIONS["weight_update"].reference)),
        num_parameters=num_parameters,
    )
