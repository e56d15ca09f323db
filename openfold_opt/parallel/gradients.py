"""Averaging of gradients over the training ranks, overlapped with the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup


def average_gradients(gradients: Tensor, axis: AxisGroup, *, bucket_bytes: int) -> None:
    """Replace a flat tensor [n] by its mean over the ranks of an axis, in place.

    The buckets are all-reduced concurrently. Afterward every rank holds the same bits. On an axis
    of size 1 the tensor is unchanged.
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
    elements: slice
    """Range of the flat gradient."""
    num_parameters: int
    """Number of parameters in the bucket that get a gradient."""
    num_missing: int = 0
    """Number of parameters whose gradient the current backward pass has not computed yet."""
    work: dist.Work | None = None


class GradientReducer:
    """Averages a flat gradient in buckets, each as soon as the backward pass has filled it.

    The last parameters of a model get their gradients first, so buckets are cut from the end of the
    tensor. The first bucket also holds the elements after the parameters. Every rank reduces the
    buckets in this order, so a bucket that is complete early waits for the preceding ones.
    """

    def __init__(
        self,
        gradients: Tensor,
        parameters: Mapping[Tensor, int],
        axis: AxisGroup,
        *,
        bucket_bytes: int,
        overlaps: bool,
        collect: Callable[[slice], None],
        without_gradient: Collection[Tensor] = (),
    ) -> None:
        """Register hooks on the parameters, unless the axis has size 1.

        Args:
            gradients: [n] float32.
            parameters: offset of the gradient of each parameter in `gradients`. Parameters that are
                joined in memory and get one gradient count as one.
            axis: the ranks to average over.
            bucket_bytes: size of a bucket; a larger parameter gets a separate bucket.
            overlaps: whether buckets are reduced during the backward pass or all at its end. The
                results are bit-identical.
            collect: called with the range of a bucket before it is reduced, to add the gradients of
                its parameters there.
            without_gradient: parameters that the loss does not depend on; no bucket waits for them.
        """
        self._gradients = gradients
        self._axis = axis
        self._collect = collect
        self._is_active = False
        self._num_launched = 0
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[Tensor, _Bucket] = {}
        self._without_gradient = frozenset(without_gradient)
        if axis.size == 1:
            return
        self._build_buckets(parameters, max(bucket_bytes // gradients.element_size(), 1))
        if overlaps:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def _build_buckets(self, parameters: Mapping[Tensor, int], bucket_size: int) -> None:
        stop, members = self._gradients.numel(), []
        for parameter, start in sorted(parameters.items(), key=lambda item: -item[1]):
            members.append(parameter)
            if stop - start >= bucket_size or start == 0:
                num_parameters = len(set(members) - self._without_gradient)
                bucket = _Bucket(elements=slice(start, stop), num_parameters=num_parameters)
                self._buckets.append(bucket)
                self._bucket_of.update(dict.fromkeys(members, bucket))
                stop, members = start, []

    @property
    def buckets(self) -> list[slice]:
        """Ranges of the buckets in the order in which they are reduced."""
        return [bucket.elements for bucket in self._buckets]

    def prepare_for_backward(self) -> None:
        """Reduce buckets during the next backward pass, which must be the last before `finish`.

        The elements after the parameters must be complete already.
        """
        for bucket in self._buckets:
            bucket.num_missing = bucket.num_parameters
        self._is_active = True

    @torch.no_grad()
    def _on_gradient(self, parameter: Tensor) -> None:
        if not self._is_active:
            return
        if parameter in self._without_gradient:
            raise RuntimeError(
                f"a parameter of shape {tuple(parameter.shape)} got a gradient but was declared "
                "without one; its bucket may have been reduced already. Correct without_gradient"
            )
        self._bucket_of[parameter].num_missing -= 1
        while (
            self._num_launched < len(self._buckets)
            and self._buckets[self._num_launched].num_missing == 0
        ):
            self._launch()

    def _launch(self) -> None:
        bucket = self._buckets[self._num_launched]
        self._collect(bucket.elements)
        with torch.profiler.record_function(
            f"{self._axis.name}: start all-reduce of bucket {self._num_launched}"
        ):
            bucket.work = dist.all_reduce(
                self._gradients[bucket.elements], group=self._axis.process_group, async_op=True
            )
        self._num_launched += 1

    @torch.no_grad()
    def finish(self, num_elements: int) -> Tensor | None:
        """Reduce the remaining buckets, wait for all and divide by the number of ranks.

        Returns:
            The sum of squares of the first `num_elements` averaged elements, float64 scalar,
            accumulated bucket by bucket. None on an axis of size 1, where nothing is done.
        """
        if not self._buckets:
            return None
        self._is_active = False
        while self._num_launched < len(self._buckets):
            self._launch()
        squares = []
        for bucket in self._buckets:
            bucket.work.wait()
            bucket.work = None
            averaged = self._gradients[bucket.elements].div_(self._axis.size)
            counted = averaged[: max(num_elements - bucket.elements.start, 0)]
            squares.append(torch.linalg.vector_norm(counted, dtype=torch.float64).square())
        self._num_launched = 0
        return torch.stack(squares).sum()
