"""Agreement between ranks outside the step: weights at the start, small objects, a barrier."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup

T = TypeVar("T")


def broadcast_tensor(x: Tensor, axis: AxisGroup) -> None:
    """Overwrite a contiguous tensor by that of the axis's first rank, in place."""
    if axis.size > 1:
        dist.broadcast(x, group=axis.process_group, group_src=0)


def broadcast_object(value: T, axis: AxisGroup) -> T:
    """The first rank's value, on every rank; it must pickle."""
    if axis.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, group=axis.process_group, group_src=0)
    return box[0]


def gather_objects(value: T, axis: AxisGroup) -> list[T]:
    """The values of all ranks in rank order, on every rank; they must pickle."""
    if axis.size == 1:
        return [value]
    values: list[T] = [value] * axis.size
    dist.all_gather_object(values, value, group=axis.process_group)
    return values


def barrier(axis: AxisGroup) -> None:
    """Wait until every rank of the axis is here."""
    if axis.size > 1:
        dist.barrier(group=axis.process_group)


def check_same_everywhere(x: Tensor, axis: AxisGroup, *, what: str) -> None:
    """Raise ValueError on every rank unless all hold the same bits of x (compared by SHA-256)."""
    if axis.size == 1:
        return
    digest = hashlib.sha256(x.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    digests = gather_objects(digest, axis)
    different = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if different:
        raise ValueError(
            f"{what} of ranks {different} differ from rank 0; all ranks must run the same code on the same "
            "versions of its libraries"
        )
