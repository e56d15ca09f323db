"""How this process was started, according to its environment."""

from __future__ import annotations

import os

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
