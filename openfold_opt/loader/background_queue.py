"""A queue that a background thread fills from an iterator."""

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator


class BackgroundQueue:
    """Runs an iterator in a thread, up to `depth` items ahead. For one consuming thread.

    An exception of the iterator is raised in the consumer after the items before it.
    """

    def __init__(self, items: Iterator, *, depth: int, name: str) -> None:
        self._items = items
        self._queue: queue.Queue = queue.Queue(maxsize=depth)
        self._end: BaseException | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self):
        """Return the next item.

        After the last item, every call raises StopIteration or the error that ended the iterator.
        """
        if self._end is not None:
            raise self._end
        item = self._queue.get()
        if isinstance(item, _End):
            self._end = item.error
            raise self._end
        return item

    def _run(self) -> None:
        try:
            for item in self._items:
                self._queue.put(item)
                if self._is_closed.is_set():
                    return
            end = _End(StopIteration())
        except BaseException as error:  # raised again in the consuming thread
            end = _End(error)
        self._queue.put(end)

    def close(self) -> None:
        """Stop the thread when its iterator next yields or raises. Safe to call twice."""
        self._is_closed.set()
        while self._thread.is_alive():
            # The thread may be waiting for space in the queue.
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._end = RuntimeError("the prefetcher is closed; create a new one to read more batches")


@dataclasses.dataclass(frozen=True)
class _End:
    error: BaseException
