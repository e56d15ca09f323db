"""Save the checkpoints of a run: the first rank writes, and all ranks learn of a failure."""

from __future__ import annotations

from collections.abc import Callable

from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object
from openfold_opt.train.checkpoint.background_writer import BackgroundWriter


class CheckpointSaver:
    """Saves checkpoints. Every method is a collective operation of the training ranks.

    Args:
        writer: writes the checkpoints; used on the first rank.
        ranks: the training ranks.
        take: returns a snapshot of the current state; called on the first rank.
        warn: receives a message about a missing checkpoint.
    """

    def __init__(
        self,
        writer: BackgroundWriter,
        ranks: AxisGroup,
        *,
        take: Callable[[], Snapshot],
        warn: Callable[[str], None],
    ) -> None:
        self._writer = writer
        self._ranks = ranks
        self._take = take
        self._warn = warn

    def begin(self) -> None:
        """Start to write a checkpoint.

        Raises OSError on every rank if the previous checkpoint could not be written.
        """
        self._on_first_rank(lambda: self._writer.begin(self._take))

    def save_now(self) -> None:
        """Write a checkpoint and wait for it, even if the previous one failed.

        Raises OSError on every rank if it could not be written.
        """
        self.finish_or_warn()
        self.begin()
        self._on_first_rank(self._writer.finish)

    def save_last(self) -> None:
        """Write the last checkpoint. A failure is only a warning, because the run is complete."""
        try:
            self.save_now()
        except OSError as error:
            self._warn(f"the last checkpoint is missing: {error}")

    def finish_or_warn(self) -> None:
        """Wait for the checkpoint that is being written. A failure is only a warning."""
        try:
            self._on_first_rank(self._writer.finish)
        except OSError as error:
            self._warn(f"a checkpoint is missing: {error}")

    def close(self) -> None:
        """Wait for the writer and ignore its error. A second call does nothing."""
        self._writer.close()

    def _on_first_rank(self, write: Callable[[], None]) -> None:
        """Call `write` on the first rank. Raise its OSError on every rank."""
        failure: OSError | None = None
        if self._ranks.rank == 0:
            try:
                write()
            except OSError as error:
                failure = error
        message = broadcast_object(None if failure is None else str(failure), self._ranks)
        if message is not None:
            raise OSError(message) from failure
