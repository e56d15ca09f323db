"""The wish that a run should stop, and the way it ends then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PreemptedError(RuntimeError):
    """The run was asked to stop, and did so after a checkpoint; the same command continues it."""


class StopRequest:
    """Somebody wants the run to stop at the next step, with a checkpoint. A signal handler may raise it at any time."""

    def __init__(self) -> None:
        self.is_raised = False
        self.is_watched = False
        """Whether somebody looks at it now; before training begins and after it nobody does."""
        self.is_heard = False
        """Whether all ranks are stopping, because one of them was asked to."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While steps are made."""
        self.is_watched = True
        try:
            yield
        finally:
            self.is_watched = False
