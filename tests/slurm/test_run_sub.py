"""run.sub without a cluster: its refusals and the arguments of its steps.

srun and scontrol are programs that print their arguments.
"""

import fcntl
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = {
    # The last line of the first step is the data directory.
    "srun": 'echo "$*" >> "$CALLS"; while [ $# -gt 3 ]; do shift; done; echo "$2"',
    "scontrol": "printf 'n1\\nn2\\n'",
}


@pytest.fixture
def job(tmp_path):
    """Return a function that runs run.sub with cpu_2x2 and further variables.

    LOGDIR is the relative path logs.
    """
    bin_folder, here = tmp_path / "bin", tmp_path / "where sbatch was called"
    bin_folder.mkdir()
    here.mkdir()
    for name, text in PROGRAMS.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "11",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NODELIST": "n[1-2]",
    }
    fixed = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "LOGDIR": "logs",
        "NEXP": "2",
    } | slurm

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        script = f". '{ROOT}/slurm/configs/cpu_2x2.sh'; " + "".join(
            f"export {name}='{value}'; " for name, value in variables.items()
        )
        command = ["bash", "-c", f"{script} bash '{ROOT}/slurm/run.sub'"]
        return subprocess.run(
            command, cwd=here, env=fixed, capture_output=True, text=True, timeout=60
        )

    run.here, run.bin = here, bin_folder
    run.calls = tmp_path / "calls"
    return run


def test_paths_are_those_of_the_caller(job):
    shown = job(DATADIR="shards", INIT_CHECKPOINT="weights.pt")
    assert shown.returncode == 0, shown.stderr
    calls = job.calls.read_text()
    for option in (
        "--data-dir {}/shards",
        "--init-checkpoint {}/weights.pt",
        "--output-dir {}/logs/cpu_2x2-11/run_1 ",
    ):
        assert option.format(job.here) in calls, calls
    assert (job.here / "logs/cpu_2x2-11/run_2.log").exists()


def test_preflight_gets_the_time_limit_of_the_job(job):
    squeue = job.bin / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$*" = "--noheader --jobs=11 --format=%l" ] && echo 2:00:00\n')
    squeue.chmod(0o755)
    assert job(DATADIR="shards").returncode == 0
    calls = job.calls.read_text()
    assert "--time-limit 2:00:00 --rounds 2" in calls and "--predicted" not in calls
    job.calls.unlink()
    # Without an answer of Slurm, it is what the configuration requests.
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert job(DATADIR="shards", PREDICTED_RUN_SECONDS="600").returncode == 0
    options = "--time-limit 12:00:00 --rounds 2 --predicted-run-seconds 600"
    assert options in job.calls.read_text()


def test_seeds_follow_the_first_one_modulo_the_range(job):
    assert job(DATADIR="shards", SEED="2147483647").returncode == 0
    assert (job.here / "logs/cpu_2x2-11/seeds.txt").read_text() == "1 2147483647\n2 0\n"
    shown = job(DATADIR="shards", SEED="5")
    assert shown.returncode == 2 and "begins with 2147483647" in shown.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SEED", "2147483648", "from 0 to 2147483647"),
        ("SEED", "99999999999999999999", "from 0 to 2147483647"),
        ("SEED", "-1", "from 0 to 2147483647"),
        ("NEXP", "0", "expected a number of at least 1"),
        ("NEXP", "99999999999999999999", "expected a number of at least 1"),
        ("GPUS_PER_NODE", "", "expected a number, 0 for none"),
        ("LOGDIR", "/dev/null/logs", "cannot be created; correct LOGDIR"),
    ],
)
def test_invalid_values_are_refused(job, name, value, message):
    shown = job(**{"DATADIR": "shards", name: value})
    assert shown.returncode == 2 and message in shown.stderr, shown.stderr
    assert not job.calls.exists()


def test_directory_of_another_request_is_refused(job):
    assert job(DATADIR="shards", JOB_DIR="one").returncode == 0
    assert job(DATADIR="shards", JOB_DIR="one").returncode == 0
    shown = job(DATADIR="shards", JOB_DIR="one", PRESET="demo_ci_2x2")
    assert (
        shown.returncode == 2
        and "is of another request" in shown.stderr
        and "PRESET=demo_2x2" in shown.stderr
    )
    shown = job(DATADIR="shards", JOB_DIR="one", NEXP="3")
    assert shown.returncode == 2 and "expected NEXP x INSTANCES = 3" in shown.stderr


def test_phase_is_one_run_without_a_check_of_its_log(job):
    variables = {"DATADIR": "shards", "JOB_DIR": "one", "PHASE": "first", "NEXP": "3"}
    shown = job(**variables, RUN_OPTIONS="--tensorboard --set a=1", DIVISION="closed")
    assert shown.returncode == 0, shown.stderr
    assert "phase first: exit code 0" in shown.stdout
    prepare, preflight, run = job.calls.read_text().splitlines()
    assert preflight.endswith(" --phase first") and "--runs 1 " in preflight
    assert run.endswith(" --phase first --tensorboard --set a=1")
    assert f"--output-dir {job.here}/one/run_1 " in run and "slurm/prepare.sh" in prepare
    names = {path.name for path in (job.here / "one").iterdir()}
    assert {"phase_first.log", "preflight_first.log", "seeds.txt"} <= names
    # Another phase may have other nodes, but not another preset.
    assert job(**variables | {"PHASE": "second"}, SYSTEM="other").returncode == 0
    other = job(**variables | {"PRESET": "demo_ci_2x2"})
    assert other.returncode == 2 and "is of another request" in other.stderr
    no_phase = job(DATADIR="shards", JOB_DIR="one")
    assert no_phase.returncode == 2 and "is of another request" in no_phase.stderr


def test_exit_code_of_a_phase_is_that_of_its_run(job):
    fails = 'echo "$*" >> "$CALLS"; case "$*" in *run_and_time*) exit 1;; esac; echo shards'
    (job.bin / "srun").write_text(f"#!/bin/sh\n{fails}\n")
    shown = job(DATADIR="shards", PHASE="first")
    assert shown.returncode == 1 and "phase first: exit code 1" in shown.stdout


@pytest.mark.parametrize(("name", "value"), [("PHASE", "a b"), ("INSTANCES", "2")])
def test_phase_needs_a_name_and_one_instance(job, name, value):
    shown = job(**{"DATADIR": "shards", "PHASE": "first", name: value})
    assert shown.returncode == 2 and f"{name} is " in shown.stderr


def test_directory_in_which_a_job_works_is_refused(job):
    (job.here / "one").mkdir()
    with open(job.here / "one" / "lock", "w") as lock:
        lock.write("7\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = job(DATADIR="shards", JOB_DIR="one")
    assert shown.returncode == 2 and "job 7 works in" in shown.stderr, shown.stderr
    assert job(DATADIR="shards", JOB_DIR="one").returncode == 0
