"""Memory of a training step on a GPU, from the stored counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmark.command_line import BenchmarkError
from benchmark.plan.step_counts import StepCounts
from benchmark.plan.systems import System
from openfold_opt.train.config import RunConfig
from openfold_opt.train.memory_plan import USABLE_SHARE

_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes on one GPU."""

    state: int
    graphs: int
    step: int
    """Tensors saved for the backward pass, and the largest workspace."""
    recomputed_blocks: int
    available: int
    """Memory of the GPU."""

    @property
    def total(self) -> int:
        """Bytes of parameters, graphs and step."""
        return self.state + self.graphs + self.step


def plan_memory(counts: StepCounts, config: RunConfig, system: System) -> MemoryNeed:
    """Return the memory with the fewest recomputed blocks that fit, or as the preset says.

    Raises:
        BenchmarkError: A step does not fit even if all blocks are recomputed.
    """
    memory = counts.memory
    if memory is None:
        raise BenchmarkError(f"the counts of {counts.code} have no memory")
    local, available = config.local_batch_size, system.chip.memory_bytes
    graphs = memory.graphs if config.cuda_graphs else 0
    usable = USABLE_SHARE * (available - memory.state - graphs)

    def needed(recomputed: int) -> int:
        # The blocks of the shorter stacks are the first to be recomputed; they are not counted
        # one by one.
        kept = (counts.num_blocks - recomputed) * memory.block
        saved = memory.saved_recomputed + kept + (memory.block if recomputed else 0)
        return local * (min(saved, memory.saved) + memory.workspace)

    lacking = needed(counts.num_blocks) - usable
    if lacking > 0:
        raise BenchmarkError(
            f"a GPU of {system.name} has {available / _GB:.0f} GB, and "
            f"{(available + lacking / USABLE_SHARE) / _GB:.0f} GB are needed even if all blocks "
            f"are recomputed: {lacking / USABLE_SHARE / _GB:.1f} GB are missing; use a larger DAP "
            "size, a smaller local batch, or a GPU with more memory"
        )
    recomputed = counts.num_blocks if config.recompute is True else 0
    if config.recompute == "auto" and needed(0) > usable:
        excess = needed(0) - usable
        recomputed = min(counts.num_blocks, max(1, math.ceil(excess / (local * memory.block))))
        while recomputed < counts.num_blocks and needed(recomputed) > usable:
            recomputed += 1
    elif config.recompute is False and needed(0) > usable:
        raise BenchmarkError(
            f"a step without recomputation needs {needed(0) / _GB:.0f} GB, and {usable / _GB:.0f} "
            f"GB of a GPU of {system.name} are usable: {(needed(0) - usable) / _GB:.1f} GB are "
            'missing; set recompute="auto"'
        )
    return MemoryNeed(
        state=memory.state,
        graphs=graphs,
        step=needed(recomputed),
        recomputed_blocks=recomputed,
        available=available,
    )
