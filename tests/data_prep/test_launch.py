"""Detection of launchers, and processes that MPI does not connect."""

from __future__ import annotations

import os
import sys

import pytest

from data_prep.errors import DataPrepError
from data_prep.launch import is_under_mpi, num_srun_tasks, open_communicator
from tests.support import raw_data


@pytest.fixture
def no_launcher(monkeypatch) -> pytest.MonkeyPatch:
    for name in [
        name for name in os.environ if name.startswith(("SLURM_", "PMI_", "OMPI_", "MPI_", "PMIX_"))
    ]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 1),
        ({"SLURM_NTASKS": "64", "SLURM_PROCID": "0"}, 1),  # The script of a batch job.
        ({"SLURM_NTASKS": "64", "SLURM_PROCID": "3", "SLURM_STEP_ID": "0"}, 64),
        ({"SLURM_NTASKS": "64", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "1"}, 1),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "1"}, 2),
    ],
)
def test_tasks_of_srun(no_launcher, variables, expected):
    for name, value in variables.items():
        no_launcher.setenv(name, value)
    assert num_srun_tasks() == expected


@pytest.mark.parametrize(
    "variables", [{"SLURM_NTASKS": "64", "SLURM_STEP_ID": "0"}, {"PMI_SIZE": "4"}]
)
@pytest.mark.parametrize("has_mpi", [True, False])
def test_unconnected_processes_are_refused(no_launcher, variables, has_mpi):
    for name, value in variables.items():
        no_launcher.setenv(name, value)
    single_process_world = type("World", (), {"Get_size": staticmethod(lambda: 1)})
    module = type(sys)("mpi4py")
    module.MPI = type("MPI", (), {"COMM_WORLD": single_process_world})
    no_launcher.setitem(sys.modules, "mpi4py", module if has_mpi else None)
    with pytest.raises(DataPrepError, match="Each (process )?would do all the work"):
        with open_communicator():
            pass


def test_srun_without_mpi_converts_nothing(no_launcher, tmp_path):
    raw = raw_data.write_raw_data(tmp_path / "raw")
    env = {**os.environ, "SLURM_NTASKS": "64", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}
    finished = raw_data.run_convert(raw, tmp_path / "out", env)
    assert (
        finished.returncode == 1
        and "do all the work" in finished.stderr
        and not (tmp_path / "out").exists()
    )


def test_launchers_are_detected(monkeypatch):
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"):
        monkeypatch.delenv(name, raising=False)
    assert not is_under_mpi()
    monkeypatch.setenv("PMI_SIZE", "1")
    assert not is_under_mpi()
    monkeypatch.setenv("PMI_SIZE", "2")
    assert is_under_mpi()
