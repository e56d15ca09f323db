"""Clipping of the gradient of each sample by its own global norm (AF2 suppl. 1.11.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.gradients import average_gradients
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer


def check_one_sample(local_batch_size: int) -> None:
    """Raise ValueError if a micro-batch, whose gradient is clipped, has several samples."""
    if local_batch_size != 1:
        raise ValueError(
            f'clip_per="sample" with {local_batch_size} samples in a micro-batch: one backward '
            "pass computes the sum of their gradients, which cannot be clipped separately; set "
            "local_batch_size=1 (accumulation keeps the global batch), or "
            'optimizer.clip_per="batch"'
        )


class SampleClipping:
    """Clips the gradient of each micro-batch, which has one sample, and sums the results.

    The gradients of a DAP group are averaged before they are clipped, because each of its ranks has
    only a part of the gradient of the sample. The host never waits for the device.
    """

    def __init__(
        self,
        buffer: ParameterBuffer,
        dap: AxisGroup,
        *,
        max_norm: float,
        accumulation: int,
        bucket_bytes: int,
    ) -> None:
        """Allocate the sum, unless a step has one micro-batch.

        Args:
            buffer: has the flat gradient.
            dap: the ranks that share a sample.
            max_norm: largest norm of a clipped gradient.
            accumulation: micro-batches per step; the sum is divided by it.
            bucket_bytes: size of the parts that are all-reduced.
        """
        self._buffer = buffer
        self._dap = dap
        self._max_norm = max_norm
        self._accumulation = accumulation
        self._bucket_bytes = bucket_bytes
        self._sum = torch.zeros_like(buffer.values) if accumulation > 1 else None

    def zero_sum(self) -> None:
        """Clear the sum before the first micro-batch of a step."""
        if self._sum is not None:
            self._sum.zero_()

    @torch.no_grad()
    def clip_sample(self) -> Tensor:
        """Clip the gradient of the sample in the buffer, and add it to the sum.

        With several micro-batches, the gradient is then cleared for the next one.

        Returns:
            The norm before clipping, float32 scalar on the device, the same on the DAP group.
        """
        gradient = self._gradient()
        self._buffer.collect_gradients()
        average_gradients(gradient, self._dap, bucket_bytes=self._bucket_bytes)
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float64).float()
        scale = (self._max_norm / (norm + 1e-6)).clamp(max=1.0) / self._accumulation
        if self._sum is None:
            gradient.mul_(scale)
        else:
            self._sum.addcmul_(gradient, scale)
            gradient.zero_()
        return norm

    @torch.no_grad()
    def copy_sum(self) -> None:
        """Replace the gradient in the buffer by the mean of the clipped gradients of this rank."""
        if self._sum is not None:
            self._gradient().copy_(self._sum)

    def _gradient(self) -> Tensor:
        return self._buffer.gradients[: self._buffer.size]
