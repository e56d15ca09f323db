"""What the environment says about how this process was started."""

from __future__ import annotations

import os

_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")
"""Set by the launchers of MPICH, OpenMPI and Hydra."""


def is_under_mpi() -> bool:
    """Whether an MPI launcher started this process together with others."""
    return any(os.environ.get(name, "1") not in ("", "1") for name in _SIZE_VARIABLES)
