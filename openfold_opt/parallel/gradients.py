"""Averaging of gradients over the ranks that train, behind the backward pass that makes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openfold_opt.parallel.axis import AxisGroup


def average_gradients(gradients: Tensor, axis: AxisGroup, *, bucket_bytes: int) -> None:
    """Replace a flat tensor [n] by its mean over the ranks of an axis, in place.

    It goes in buckets, all in flight at once. Afterwards every rank holds the same bits. On an axis of
    size 1 nothing happens.
    """
    if axis.size == 1:
        return
    size = max(bucket_bytes // gradients.element_size(), 1)
    pending = [
        dist.all_reduce(bucket, group=axis.process_group, async_op=True)
        for bucket in gradients.split(size)
    ]
    for work in pending:
        work.wait()
    gradients.div_(axis.size)


@dataclass(kw_only=True, eq=False)
class _Bucket:
    chunk: slice
    num_parameters: int
    """With a gradient."""
    num_missing: int = 0
    """Parameters whose gradient the running backward pass has not made yet."""
    work: Any = None


class GradientReducer:
    """Averages a flat gradient by buckets, each as soon as the backward pass has filled it.

    A model's last parameters get their gradients first, so buckets are cut from the end of the tensor: the first one holds whatever
    lies behind the parameters, too. They are sent in this order on every rank, so a bucket that is filled early waits for those before.
    """

    def __init__(
        self,
        gradients: Tensor,
        parameters: Mapping[nn.Parameter, int],
        axis: AxisGroup,
        *,
        bucket_bytes: int,
        overlaps: bool,
        collect: Callable[[slice], None],
        without_gradient: Collection[nn.Parameter] = (),
    ) -> None:
        """Hooks into the parameters if there is something to average.

        Args:
            gradients: [n] float32.
            parameters: place of the first element of each one's gradient.
            axis: the ranks to average over.
            bucket_bytes: size of a bucket; a larger parameter has one of its own.
            overlaps: whether buckets are sent during the backward pass, or all at its end; the results are the same bits.
            collect: called with a bucket's part of the tensor before it is sent, to bring gradients there that are made elsewhere.
            without_gradient: parameters that the loss does not depend on; no bucket waits for
                them.
        """
        self._gradients = gradients
        self._axis = axis
        self._collect = collect
        self._is_armed = False
        self._num_launched = 0
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[nn.Parameter, _Bucket] = {}
        self._without_gradient = frozenset(without_gradient)
        if axis.size == 1:
            return
        self._cut(parameters, max(bucket_bytes // gradients.element_size(), 1))
        if overlaps:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._note)

    def _cut(self, parameters: Mapping[nn.Parameter, int], bucket_size: int) -> None:
        stop, members = self._gradients.numel(), []
        for parameter, start in sorted(parameters.items(), key=lambda item: -item[1]):
            members.append(parameter)
            if stop - start >= bucket_size or start == 0:
                num_parameters = len(set(members) - self._without_gradient)
                bucket = _Bucket(chunk=slice(start, stop), num_parameters=num_parameters)
                self._buckets.append(bucket)
                self._bucket_of.update(dict.fromkeys(members, bucket))
                stop, members = start, []

    @property
    def chunks(self) -> list[slice]:
        """The buckets, in the order in which they are sent."""
        return [bucket.chunk for bucket in self._buckets]

    def arm(self) -> None:
        """The next backward pass is the last before `finish`. What lies behind the parameters is complete already."""
        for bucket in self._buckets:
            bucket.num_missing = bucket.num_parameters
        self._is_armed = True

    @torch.no_grad()
    def _note(self, parameter: nn.Parameter) -> None:
        if not self._is_armed:
            return
        if parameter in self._without_gradient:
            raise RuntimeError(
                f"a parameter of shape {tuple(parameter.shape)} got a gradient but was declared "
                "without one; its bucket may have been sent already. Correct without_gradient"
            )
        self._bucket_of[parameter].num_missing -= 1
        while (
            self._num_launched < len(self._buckets)
            and self._buckets[self._num_launched].num_missing == 0
        ):
            self._launch()

    def _launch(self) -> None:
        bucket = self._buckets[self._num_launched]
        self._collect(bucket.chunk)
        with torch.profiler.record_function(
            f"{self._axis.name}: start all-reduce of bucket {self._num_launched}"
        ):
            bucket.work = dist.all_reduce(
                self._gradients[bucket.chunk], group=self._axis.process_group, async_op=True
            )
        self._num_launched += 1

    @torch.no_grad()
    def finish(self, num_elements: int) -> Tensor | None:
        """Send what was not sent, wait for all and divide by the number of ranks.

        Returns the sum of squares of the first `num_elements` averaged elements, float64 scalar, gathered bucket by bucket as they come
        in; None, and nothing done, on an axis of size 1.
        """
        if not self._buckets:
            return None
        self._is_armed = False
        while self._num_launched < len(self._buckets):
            self._launch()
        squares = []
        for bucket in self._buckets:
            bucket.work.wait()
            bucket.work = None
            averaged = self._gradients[bucket.chunk].div_(self._axis.size)
            of_parameters = averaged[: max(num_elements - bucket.chunk.start, 0)]
            squares.append(torch.linalg.vector_norm(of_parameters, dtype=torch.float64).square())
        self._num_launched = 0
        return torch.stack(squares).sum()
