"""Count the PyTorch calls and collectives of a pass of a sharded step on a CPU."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from benchmark.perf.tools.call_trace import CallGroup, count_calls
from benchmark.perf.tools.meta_step import MetaStep
from openfold_opt.model.plan import ALL_BLOCKS
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.config import RunConfig

CPU_KERNELS = "reference"
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


def count_pass(config: RunConfig, iterations: int) -> tuple[PassCounts, int]:
    """Return the counts with a number of recycling iterations, and the number of parameters."""
    sent: Counter[tuple[str, int]] = Counter()
    axis = counted_axis(config.parallel, size=config.parallel.dap_size)
    if config.parallel.dap_size > 1:
        axis = dataclasses.replace(
            axis, on_launch=lambda what, kind, sent_bytes: sent.update([(kind, sent_bytes)])
        )
    step = MetaStep.build(
        config,
        kernels=CPU_KERNELS,
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
