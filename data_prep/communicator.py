"""Communication between the processes of a conversion, serial or MPI.

Work is numbered. Under MPI a thread of rank 0 answers the requests of the other ranks for the next
number, so that a rank with small pieces of work gets more of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

_REQUEST_TAG, _REPLY_TAG = 11, 12
_POLL_SECONDS = 0.002
"""Sleep of the serving thread between polls. A blocking MPI receive would keep a core busy."""


class _Counter:
    """A thread-safe counter 0 .. limit - 1."""

    def __init__(self, limit: int) -> None:
        self._numbers = iter(range(limit))
        self._lock = threading.Lock()

    def next(self) -> int | None:
        """Return the next number, or None after the last one."""
        with self._lock:
            return next(self._numbers, None)


def _serve(world: Any, counter: _Counter, *, num_clients: int) -> None:
    """Answer the requests of the other ranks until each has left or received None."""
    while num_clients:
        if not world.iprobe(tag=_REQUEST_TAG):
            time.sleep(_POLL_SECONDS)
            continue
        rank, is_leaving = world.recv(tag=_REQUEST_TAG)
        number = None if is_leaving else counter.next()
        if not is_leaving:
            world.send(number, dest=rank, tag=_REPLY_TAG)
        num_clients -= number is None


def _request_numbers(world: Any, rank: int) -> Iterator[int]:
    """Yield the numbers that rank 0 assigns to this rank.

    If the iteration ends early, rank 0 is notified, because it would wait for the next request.
    """
    number: int | None = 0
    try:
        while True:
            world.send((rank, False), dest=0, tag=_REQUEST_TAG)
            number = world.recv(source=0, tag=_REPLY_TAG)
            if number is None:
                return
            yield number
    finally:
        if number is not None:
            world.send((rank, True), dest=0, tag=_REQUEST_TAG)


class SerialCommunicator:
    """The communicator of a single process."""

    rank = 0
    size = 1

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0 on every rank."""
        return value

    def all_gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in rank order, on every rank. This is also a barrier."""
        return [value]

    def distribute(self, count: int) -> Iterator[int]:
        """Yield the numbers out of 0 .. count - 1 that are assigned to this rank.

        Each number goes to one rank. A rank gets its next number when it has processed the last.
        """
        yield from range(count)


class MpiCommunicator:
    """The communicator of the processes of `mpiexec -n N`."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.rank = world.Get_rank()
        self.size = world.Get_size()

    def broadcast(self, value: Any) -> Any:
        return self._world.bcast(value, root=0)

    def all_gather(self, value: Any) -> list[Any]:
        return self._world.allgather(value)

    def distribute(self, count: int) -> Iterator[int]:
        if self.rank != 0:
            yield from _request_numbers(self._world, self.rank)
            return
        counter = _Counter(count)
        server = threading.Thread(
            target=_serve,
            args=(self._world, counter),
            kwargs={"num_clients": self.size - 1},
            daemon=True,
        )
        server.start()
        try:
            yield from iter(counter.next, None)
        finally:
            server.join()

    def abort(self) -> None:
        """End all ranks, so that none waits for a rank that failed unexpectedly."""
        self._world.Abort(1)
