"""Collectives outside the training step: broadcast of weights, small objects, barrier."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup

T = TypeVar("T")


def broadcast_tensor(x: Tensor, axis: AxisGroup) -> None:
    """Overwrite a contiguous tensor in place by that of the first rank of the axis."""
    if axis.size > 1:
        dist.broadcast(x, group=axis.process_group, group_src=0)


def broadcast_object(value: T, axis: AxisGroup) -> T:
    """Return the first rank's value on every rank. The value must be picklable."""
    if axis.size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, group=axis.process_group, group_src=0)
    return values[0]


def gather_objects(value: T, axis: AxisGroup) -> list[T]:
    """Return the values of all ranks in rank order on every rank. They must be picklable."""
    if axis.size == 1:
        return [value]
    values: list[T] = [value] * axis.size
    dist.all_gather_object(values, value, group=axis.process_group)
    return values


def barrier(axis: AxisGroup) -> None:
    """Wait until every rank of the axis has called this function."""
    if axis.size > 1:
        dist.barrier(group=axis.process_group)


def check_same_everywhere(x: Tensor, axis: AxisGroup, *, what: str) -> None:
    """Check that x is bit-identical on all ranks, by SHA-256.

    Raises:
        ValueError: on every rank, if any rank differs; names the ranks that differ from the first.
    """
    if axis.size == 1:
        return
    digest = hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    digests = gather_objects(digest, axis)
    different = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if different:
        raise ValueError(
            f"{what} of ranks {different} differ from rank 0; all ranks must run the same code "
            "with the same library versions"
        )
