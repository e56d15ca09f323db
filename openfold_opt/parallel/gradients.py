"""Averaging of gradients over the ranks that train."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup


def average_gradients(gradients: Tensor, axis: AxisGroup, *, bucket_bytes: int) -> None:
    """Replace a flat tensor [n] by its mean over the ranks of an axis, in place.

    It goes in buckets, all in flight at once. Afterwards every rank holds the same bits. On an axis of
    size 1 nothing happens.
    """
    if axis.size == 1:
        return
    bucket_size = max(bucket_bytes // gradients.element_size(), 1)
    pending = [
        dist.all_reduce(bucket, group=axis.process_group, async_op=True)
        for bucket in gradients.split(bucket_size)
    ]
    for work in pending:
        work.wait()
    gradients.div_(axis.size)
