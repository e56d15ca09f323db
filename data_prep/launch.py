"""How this process was started, and its connection to the processes started with it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from data_prep.communicator import MpiCommunicator, SerialCommunicator
from data_prep.errors import DataPrepError

_MPI_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")
"""Variables that the launchers of MPICH, Open MPI and Hydra set."""


def is_under_mpi() -> bool:
    """Return whether an MPI launcher started this process together with others."""
    return any(os.environ.get(name, "1") not in ("", "1") for name in _MPI_SIZE_VARIABLES)


def num_srun_tasks() -> int:
    """Return the number of processes that `srun` started together, 1 outside a job step.

    The script of a batch job is one process, whatever the value of SLURM_NTASKS. SLURM_STEP_ID is
    set only in a job step.
    """
    if "SLURM_STEP_ID" not in os.environ and "SLURM_STEPID" not in os.environ:
        return 1
    text = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or "1"
    return int(text) if text.isdigit() else 1


@contextmanager
def open_communicator() -> Iterator[SerialCommunicator | MpiCommunicator]:
    """Open the communicator of this process.

    Under MPI an error that leaves the block ends every rank.

    Raises:
        DataPrepError: several processes were started, but MPI does not connect them. Each would do
            all the work.
    """
    num_tasks = num_srun_tasks()
    if not is_under_mpi() and num_tasks == 1:
        yield SerialCommunicator()
        return
    communicator = _connect(num_tasks)
    try:
        yield communicator
    except DataPrepError:
        raise  # All ranks raise this error, so none waits for another.
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
            f"started together with other processes, but mpi4py cannot be imported ({error}). Each "
            "process would do all the work; install the extra `mpi`, or run one process"
        ) from error
    if MPI.COMM_WORLD.Get_size() == 1:
        launcher = (
            f"srun started {num_tasks}" if num_tasks > 1 else "an MPI launcher started several"
        )
        raise DataPrepError(
            f"{launcher} processes, but MPI connects none of them. Each would do all the work; "
            f"{remedy}"
        )
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise DataPrepError(
            "this MPI does not support calls from several threads of a process (THREAD_MULTIPLE); "
            "use one that does, such as MPICH"
        )
    return MpiCommunicator(MPI.COMM_WORLD)
