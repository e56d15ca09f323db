"""The processes of a conversion: rank and size, broadcast, gather, and handing out work."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_prep.errors import DataPrepError
from data_prep.launch import is_under_mpi, num_srun_tasks

_ASK, _ANSWER = 11, 12
_POLL_SECONDS = 0.002
"""The serving thread sleeps between looks: a blocking receive of MPI would keep a core busy."""


class _Counter:
    """Counts up to a limit, for several threads."""

    def __init__(self, limit: int) -> None:
        self._numbers = iter(range(limit))
        self._lock = threading.Lock()

    def next(self) -> int | None:
        """The next number; None when there is none left."""
        with self._lock:
            return next(self._numbers, None)


def _serve(world: Any, counter: _Counter, *, num_clients: int) -> None:
    """Answers the other ranks until each of them has left, or was told that nothing is left."""
    while num_clients:
        if not world.iprobe(tag=_ASK):
            time.sleep(_POLL_SECONDS)
            continue
        rank, is_leaving = world.recv(tag=_ASK)
        number = None if is_leaving else counter.next()
        if not is_leaving:
            world.send(number, dest=rank, tag=_ANSWER)
        num_clients -= number is None


def _ask(world: Any, rank: int) -> Iterator[int]:
    """What rank 0 hands out to this one.

    Left early, it says so, or rank 0 would wait for the next question.
    """
    number: int | None = 0
    try:
        while True:
            world.send((rank, False), dest=0, tag=_ASK)
            number = world.recv(source=0, tag=_ANSWER)
            if number is None:
                return
            yield number
    finally:
        if number is not None:
            world.send((rank, True), dest=0, tag=_ASK)


class SerialCommunicator:
    """One process."""

    rank = 0
    size = 1

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every rank."""
        return value

    def gather_everywhere(self, value: Any) -> list[Any]:
        """The values of all ranks in their order, on every rank. Also a barrier."""
        return [value]

    def shared_out(self, count: int) -> Iterator[int]:
        """Numbers 0 .. count - 1, each to one rank, in this order, whenever a rank asks for the
        next."""
        yield from range(count)


class MpiCommunicator:
    """All processes of `mpiexec -n N`."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.rank = world.Get_rank()
        self.size = world.Get_size()

    def broadcast(self, value: Any) -> Any:
        return self._world.bcast(value, root=0)

    def gather_everywhere(self, value: Any) -> list[Any]:
        return self._world.allgather(value)

    def shared_out(self, count: int) -> Iterator[int]:
        if self.rank != 0:
            yield from _ask(self._world, self.rank)
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
        """End all ranks: one that failed unexpectedly must not leave the others waiting for it."""
        self._world.Abort(1)


@contextmanager
def open_communicator() -> Iterator[SerialCommunicator | MpiCommunicator]:
    """The communicator of this process. Under MPI an error that leaves the block ends every rank.

    DataPrepError if several processes were started that do not know each other: each would do all
    the work.
    """
    num_tasks = num_srun_tasks()
    if not is_under_mpi() and num_tasks == 1:
        yield SerialCommunicator()
        return
    communicator = _connect(num_tasks)
    try:
        yield communicator
    except DataPrepError:
        raise  # Known to every rank, as all of them raise it together.
    except BaseException:
        traceback.print_exc()
        communicator.abort()
        raise


def _connect(num_tasks: int) -> MpiCommunicator:
    remedy = (
        "start it with `mpiexec -n N`, `srun --mpi=pmi2` or `srun --mpi=pmix`, or as one process"
    )
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DataPrepError(
            f"started together with other processes, but mpi4py cannot be imported ({error}), so "
            "that each of them would do all the work; install the extra `mpi`, or run one process"
        ) from error
    if MPI.COMM_WORLD.Get_size() == 1:
        launcher = (
            f"srun started {num_tasks}" if num_tasks > 1 else "an MPI launcher started several"
        )
        raise DataPrepError(
            f"{launcher} processes, but MPI connects none of them, so that each would do all the "
            "work; "
            f"{remedy}"
        )
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise DataPrepError(
            "this MPI does not let several threads of a process call it (THREAD_MULTIPLE); use one "
            "that does, such as MPICH"
        )
    return MpiCommunicator(MPI.COMM_WORLD)
