"""Preemption: a stop request set by a signal handler, and the exception after the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Request to stop the run after the current step, with a checkpoint.

    A signal handler may set `is_raised` at any time.
    """

    def __init__(self) -> None:
        self.is_raised = False
        self.is_watched = False
        """Whether the training loop checks the request now; False before and after training."""
        self.is_acknowledged = False
        """Whether this rank is stopping on request, or has passed the request to the others."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Set `is_watched` inside the context."""
        self.is_watched = True
        try:
            yield
        finally:
            self.is_watched = False


class PreemptedError(RuntimeError):
    """The run stopped on request, after a checkpoint; the same command resumes it."""
