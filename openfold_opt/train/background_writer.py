"""Checkpoints written behind the training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from openfold_opt.train.checkpoint import CheckpointStore, Snapshot


class BackgroundWriter:
    """Writes one checkpoint at a time in a thread of its own. What went wrong is raised when the next one begins, or at `finish`."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        before_publishing: Callable[[int], None],
        published: Callable[[Path, int], None],
    ) -> None:
        """Both are called in the writing thread with the step: before a checkpoint gets its name, and after."""
        self._store = store
        self._before_publishing = before_publishing
        self._published = published
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def begin(self, take: Callable[[], Snapshot]) -> None:
        """Wait for the checkpoint before; then take a snapshot, and return while it is written.

        Raises OSError if the one before could not be written.
        """
        self.finish()
        snapshot = take()
        self._thread = threading.Thread(
            target=self._write, args=(snapshot,), name=f"checkpoint {snapshot.step}"
        )
        self._thread.start()

    def finish(self) -> None:
        """Wait until all is written. Raises OSError if it could not be; what was saved before is still there."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for the thread, whatever became of its checkpoint; a second call does nothing."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, snapshot: Snapshot) -> None:
        try:
            path = self._store.save(
                snapshot, before_publishing=lambda: self._before_publishing(snapshot.step)
            )
            self._published(path, snapshot.step)
        except OSError as error:
            self._error = error
        except BaseException as error:  # a thread's exceptions are nobody's else
            self._error = OSError(
                f"the checkpoint of step {snapshot.step} could not be written: {type(error).__name__}: {error}"
            )
            self._error.__cause__ = error
