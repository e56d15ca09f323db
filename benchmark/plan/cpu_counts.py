"""Counts of a training step on a CPU: its PyTorch calls and collectives, traced on device meta."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

import torch

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.call_trace import CallGroup, count_calls
from benchmark.perf.tools.meta_step import META, MetaStep
from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.reference.weight_update import WeightUpdateShapes
from openfold_opt.model.plan import ALL_BLOCKS
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.config import RunConfig

_KERNELS = "reference"
"""The only kernels whose calls can all be traced: the C++ kernels are no PyTorch calls."""


@dataclass(frozen=True, kw_only=True)
class CpuCollective:
    """Equal calls of a collective of a DAP group."""

    kind: str
    sent_bytes: int
    """Bytes that a rank sends in each call."""
    calls: int


@dataclass(frozen=True, kw_only=True)
class PassCounts:
    """Calls and collectives of all passes of a micro-step."""

    calls: list[CallGroup]
    collectives: list[CpuCollective]


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
    if kernels != {_KERNELS} or config.precision != "fp32":
        raise BenchmarkError(
            f"on a CPU, only steps with {_KERNELS} kernels in fp32 are planned; found kernels "
            f"{sorted(kernels)} in {config.precision}. A preset for "
            "GPUs is planned with the system of a GPU (`plan systems`)"
        )
    gradient, num_parameters = _trace(config, 0)
    with_iteration = gradient
    if config.data.max_recycling_iterations > 0:
        with_iteration, _ = _trace(config, 1)
    make = TensorMaker(device=META, dtype=torch.float32)
    update = WeightUpdateShapes(num_parameters=num_parameters).arguments(make)
    return CpuStepCounts(
        gradient=gradient,
        with_iteration=with_iteration,
        optimizer=count_calls(update.call(OPERATIONS["weight_update"].reference)),
        num_parameters=num_parameters,
    )


def _trace(config: RunConfig, iterations: int) -> tuple[PassCounts, int]:
    """Return the counts with a number of recycling iterations, and the number of parameters."""
    sent: Counter[tuple[str, int]] = Counter()
    axis = counted_axis(config.parallel, size=config.parallel.dap_size)
    if config.parallel.dap_size > 1:
        axis = dataclasses.replace(
            axis, on_launch=lambda what, kind, sent_bytes: sent.update([(kind, sent_bytes)])
        )
    step = MetaStep.build(
        config,
        kernels=_KERNELS,
        precision=config.precision,
        num_recycling_iterations=iterations,
        dap=axis,
        num_recomputed_blocks=ALL_BLOCKS if config.recompute is True else 0,
    )
    calls = count_calls(step.run)
    collectives = [
        CpuCollective(kind=kind, sent_bytes=size, calls=number)
        for (kind, size), number in sorted(sent.items())
    ]
    return PassCounts(calls=calls, collectives=collectives), step.buffer.size
