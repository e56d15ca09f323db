"""steps.sh: the options of srun with and without a container.

srun and scontrol are programs that print their arguments.
"""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETTINGS = {
    "NODES": "4",
    "INSTANCES": "2",
    "RANKS_PER_NODE": "8",
    "GPUS_PER_NODE": "8",
    "CPUS_PER_RANK": "",
    "BIND": "topology",
    "SLURM_JOB_ID": "11",
    "SLURM_JOB_NODELIST": "n[1-4]",
    "OPENFOLD_ROOT": "/code",
    "CODE_DIR": "/code",
    "LOGDIR": "/logs",
    "JOB_DIR": "/logs/job",
    "DATADIR": "/data",
    "INIT_CHECKPOINT": "",
    "CONTAINER": "none",
    "CONTAINER_IMAGE": "",
}


@pytest.fixture
def started(tmp_path):
    """Return a function that runs a command of steps.sh.

    It returns the address with port and the arguments of srun.
    """
    for name, text in {
        "srun": 'echo "$MASTER_ADDR:$MASTER_PORT $*"',
        "scontrol": "printf 'n1\\nn2\\nn3\\nn4\\n'",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def run(command: str, **changes: str) -> tuple[str, list[str]]:
        refuse = 'refuse() { echo "$*" >&2; exit 2; }'
        script = f". slurm/steps.sh; {refuse}; set_container; {command}; wait_for $!"
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | SETTINGS | changes
        shown = subprocess.run(
            ["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if shown.returncode:
            raise RuntimeError(shown.stderr)
        address, _, arguments = (tmp_path / "log").read_text().strip().partition(" ")
        return address, arguments.split()

    run.log = tmp_path / "log"
    return run


def test_second_instance_has_the_second_half_of_the_nodes_and_another_port(started):
    address, arguments = started(f"start_step 2 {started.log} ./run_and_time.sh --seed 1")
    assert address == f"n3:{20000 + 8 * 11 + 2 * 2}"
    assert {
        "--nodes=2",
        "--ntasks=16",
        "--ntasks-per-node=8",
        "--nodelist=n3,n4",
        "--cpu-bind=none",
        "--chdir=/code",
    } <= set(arguments)
    assert arguments[-3:] == ["./run_and_time.sh", "--seed", "1"]


def test_one_process_alone_is_on_the_first_node(started):
    _, arguments = started(f"start_alone {started.log} true", CPUS_PER_RANK="4")
    assert {"--nodes=1", "--ntasks=1", "--nodelist=n1"} <= set(arguments)


def test_processors_of_a_rank_are_requested(started):
    _, arguments = started(f"start_step 1 {started.log} true", CPUS_PER_RANK="14")
    assert "--cpus-per-task=14" in arguments


def test_pyxis(started):
    changes = {
        "CONTAINER": "pyxis",
        "CONTAINER_IMAGE": "x.sqsh",
        "CODE_DIR": "/image",
        "CONTAINER_MOUNTS": "/a:/b",
    }
    _, arguments = started(f"start_step 1 {started.log} true", **changes)
    assert {
        "--container-image=x.sqsh",
        "--container-name=openfold-11",
        "--container-workdir=/image",
    } <= set(arguments)
    assert "--container-mounts=/logs:/logs,/logs/job:/logs/job,/data:/data:ro,/a:/b" in arguments
    assert "--chdir=/image" not in arguments, "that folder is in the image, not on the node"


def test_apptainer(started):
    changes = {
        "CONTAINER": "apptainer",
        "CONTAINER_IMAGE": "x.sif",
        "CODE_DIR": "/image",
        "INIT_CHECKPOINT": "/w.pt",
    }
    _, arguments = started(f"start_step 1 {started.log} slurm/bind.sh true", **changes)
    start = arguments.index("apptainer")
    mounts = "/logs:/logs,/logs/job:/logs/job,/data:/data:ro,/w.pt:/w.pt:ro"
    assert arguments[start:] == [
        "apptainer",
        "exec",
        "--bind",
        mounts,
        "--pwd",
        "/image",
        "--nv",
        "x.sif",
        "slurm/bind.sh",
        "true",
    ]


def test_wrong_values_are_refused(started):
    with pytest.raises(RuntimeError, match="expected none, pyxis or apptainer"):
        started(f"start_step 1 {started.log} true", CONTAINER="docker")
    with pytest.raises(RuntimeError, match="CONTAINER_IMAGE is empty"):
        started(f"start_step 1 {started.log} true", CONTAINER="pyxis")


def test_wait_for_returns_the_exit_code_after_a_signal(tmp_path):
    script = (
        ". slurm/steps.sh; trap 'interrupted=1' USR1; bash -c 'sleep 1; exit 75' & "
        "child=$!; (sleep 0.3; kill -USR1 $$) & wait_for $child"
    )
    shown = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 75
