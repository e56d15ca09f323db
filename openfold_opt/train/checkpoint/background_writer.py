"""Write checkpoints in a background thread while training continues."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore


class BackgroundWriter:
    """Writes one checkpoint at a time in a thread.

    An error in the thread is raised when the next checkpoint begins, or by `finish`.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        before_rename: Callable[[int], None],
        after_rename: Callable[[Path, int], None],
    ) -> None:
        """Both callbacks run in the writer thread and receive the step.

        before_rename is called when a checkpoint is on the disk under its temporary name,
        after_rename when it has its final name.
        """
        self._store = store
        self._before_rename = before_rename
        self._after_rename = after_rename
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def begin(self, take: Callable[[], Snapshot]) -> None:
        """Wait for the previous checkpoint, take a snapshot, and start to write it.

        Raises OSError if the previous checkpoint could not be written.
        """
        self.finish()
        snapshot = take()
        self._thread = threading.Thread(
            target=self._write, args=(snapshot,), name=f"checkpoint {snapshot.step}"
        )
        self._thread.start()

    def finish(self) -> None:
        """Wait until the checkpoint is written.

        Raises OSError if it could not be written; earlier checkpoints are still complete.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait for the thread and ignore its error. A second call does nothing."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, snapshot: Snapshot) -> None:
        try:
            path = self._store.save(
                snapshot, before_rename=lambda: self._before_rename(snapshot.step)
            )
            self._after_rename(path, snapshot.step)
        except OSError as error:
            self._error = error
        except BaseException as error:  # an exception of a thread would otherwise be lost
            self._error = OSError(
                f"the checkpoint of step {snapshot.step} could not be written: "
                f"{type(error).__name__}: {error}"
            )
            self._error.__cause__ = error
