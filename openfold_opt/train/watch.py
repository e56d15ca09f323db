"""What happens between two steps: requests to stop are passed on, finished evaluations are taken, and this rank shows that it lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from openfold_opt.parallel.heartbeat import Heartbeat


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


class Watch:
    """Told by the loop what it does, and called by it between steps."""

    def __init__(self, heartbeat: Heartbeat | None, *, between_steps: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._between_steps = between_steps

    def note(self, *, doing: str, step: int | None = None) -> None:
        """What this rank does now, for the others to know if it is never heard again."""
        if self._heartbeat is not None:
            self._heartbeat.note(doing=doing, step=step)

    def between_steps(self) -> None:
        """Before each step, on every rank."""
        self._between_steps()
