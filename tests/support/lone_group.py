"""A process group of one rank, so that collectives of a single process call the backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import ParallelContext


@contextmanager
def lone_group(device: torch.device) -> Iterator[dist.ProcessGroup]:
    """Create a default process group of one rank: NCCL on a GPU, gloo on a CPU."""
    is_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if is_gpu else "gloo",
        store=dist.HashStore(),
        rank=0,
        world_size=1,
        device_id=torch.device("cuda", 0) if is_gpu else None,
    )
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def lone_axis(name: str, group: dist.ProcessGroup) -> AxisGroup:
    """Return an axis of one rank that has a process group."""
    return AxisGroup(name=name, rank=0, size=1, process_group=group)


def lone_training_context(group: dist.ProcessGroup) -> ParallelContext:
    """Return a context that all-reduces gradients over a group of one rank.

    The reducer skips axes of size 1, so this axis has a nominal size of 2. The sum over one rank is
    the gradient itself, and the mean is half of it.
    """
    training_ranks = AxisGroup(name="training", rank=0, size=2, process_group=group)
    return replace(ParallelContext.alone(), training_ranks=training_ranks)
