"""Result of a launched optimizer step, and its metrics on the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STOP_FLAGS = ("phase over", "asked to stop")
"""Flags that are all-reduced with the gradients, so that every rank sees them at the same step."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Metrics of a finished step on the host. Loss and terms are means over the global batch."""

    step: int
    num_recycling_iterations: int
    learning_rate: float
    is_applied: bool
    """False: the loss or a gradient was not finite, and no weight changed."""
    loss: float
    gradient_norm: float
    """Before clipping, of the gradient that is clipped: the global norm of the averaged gradient,
    or with clip_per="sample" the mean over the global batch of the norms of the samples."""
    terms: dict[str, float]
    stop_flags: tuple[str, ...]
    """The STOP_FLAGS that any rank had raised before this step."""


class HostCopy:
    """An asynchronous copy of a small tensor to the host, after the work queued on the device."""

    def __init__(self, x: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = x
        if x.device.type == "cuda":
            self._values = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
            self._values.copy_(x, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        """Wait for the copy and return its values."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class StepResult:
    """A launched step, whose metrics are copied to the host asynchronously."""

    step: int
    num_recycling_iterations: int
    learning_rate: float
    term_names: tuple[str, ...]
    packed: HostCopy
    """is_applied, gradient norm, stop flags, loss, terms."""
    local_terms: Tensor
    """[samples of this rank, terms + 1] float32: unweighted terms, then their weighted sum."""
    sample_ids: tuple[str, ...]
    """Samples of this rank, in the order of local_terms."""

    def read(self) -> StepMetrics:
        """Wait until the step has finished on the device, and return its metrics."""
        is_applied, norm, *flags_and_loss = self.packed.read()
        stop_flags = flags_and_loss[: len(STOP_FLAGS)]
        loss, *terms = flags_and_loss[len(STOP_FLAGS) :]
        return StepMetrics(
            step=self.step,
            num_recycling_iterations=self.num_recycling_iterations,
            learning_rate=self.learning_rate,
            is_applied=bool(is_applied),
            loss=loss,
            gradient_norm=norm,
            terms=dict(zip(self.term_names, terms, strict=True)),
            stop_flags=tuple(name for name, value in zip(STOP_FLAGS, stop_flags) if value > 0.0),
        )
