"""The few things conversion asks of its fellow processes: who am I, tell everybody, gather from everybody."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_prep.errors import DataPrepError
from data_prep.launch import is_under_mpi


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

    def abort(self) -> None:
        """End all ranks: one that failed unexpectedly must not leave the others waiting for it."""
        self._world.Abort(1)


@contextmanager
def open_communicator() -> Iterator[SerialCommunicator | MpiCommunicator]:
    """The communicator of this process. Under MPI an error that leaves the block ends every rank."""
    if not is_under_mpi():
        yield SerialCommunicator()
        return
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DataPrepError(f"started by an MPI launcher, but mpi4py cannot be imported ({error}); install the extra `mpi`") from error
    communicator = MpiCommunicator(MPI.COMM_WORLD)
    try:
        yield communicator
    except DataPrepError:
        raise  # Known to every rank, as all of them raise it together.
    except BaseException:
        traceback.print_exc()
        communicator.abort()
        raise
