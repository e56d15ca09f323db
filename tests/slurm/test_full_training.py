"""full_training.sh without a cluster: sbatch, squeue and scancel are programs that print."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.support.run_checkpoints import write_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRESET = """
import dataclasses

from benchmark.presets import demo_2x2
from openfold_opt.train.phase_config import PhaseConfig


def build():
    phases = (
        PhaseConfig(name="first", steps=4, global_batch_size=4, dap_size=1),
        PhaseConfig(name="second", steps=6, global_batch_size=4),
    )
    return dataclasses.replace(demo_2x2.build(), phases=phases, max_steps=10)
"""
PROGRAMS = {
    # Jobs get the numbers 11, 12, ...; the phase of REFUSED is not accepted.
    "sbatch": '[ "$PHASE" != "$REFUSED" ] || { echo "sbatch: no such partition" >&2; exit 1; }\n'
    'echo "$PHASE $PRESET $JOB_DIR $SEED $DATADIR :$*" >> "$CALLS"\n'
    'echo $((10 + $(wc -l < "$CALLS")))";cluster"',
    "squeue": '[ -z "$QUEUED" ] || echo PENDING',
    "scancel": 'echo "$*" >> "$CALLS.canceled"',
}
PHASES = ("--phase", "first=cpu_2x2", "--phase", "second=cpu_2x2")


@pytest.fixture
def submit(tmp_path):
    """Return a function that calls full_training.sh with the preset, a directory and arguments."""
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    # The Python of the tests, which has all modules.
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    (tmp_path / "two.py").write_text(PRESET)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "REFUSED": "none",
            "QUEUED": "",
        }
        fixed = ["--preset", "two.py", "--output-dir", "chain"]
        return subprocess.run(
            [ROOT / "slurm/full_training.sh", *fixed, *arguments],
            cwd=tmp_path,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )

    run.folder = tmp_path / "chain"
    run.calls = tmp_path / "calls"
    return run


def test_phases_are_a_chain_of_jobs(submit):
    shown = submit(*PHASES, "--seed", "5", "--walltime", "second=9:00", "--", "--partition=gpu")
    assert shown.returncode == 0, shown.stderr
    first, second = submit.calls.read_text().splitlines()
    preset = submit.folder.parent / "two.py"
    assert first.startswith(f"first {preset} {submit.folder} 5  :--parsable "), first
    assert second.startswith(f"second {preset} {submit.folder} 5  :--parsable "), second
    for call in (first, second):
        assert "--nodes=2 --ntasks-per-node=2" in call and "--partition=gpu" in call
        assert call.endswith(f" {ROOT}/slurm/run.sub")
    assert "--dependency" not in first and "--time=12:00:00" in first
    assert "--dependency=afterok:11 --kill-on-invalid-dep=yes" in second and "--time=9:00" in second
    lines = (submit.folder / "jobs.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["first", "11"], ["second", "12"]]
    phases = (submit.folder / "phases.txt").read_text()
    assert phases == "first cpu_2x2 4\nsecond cpu_2x2 4\n"
    assert f"benchmark status {submit.folder}" in shown.stdout


def test_dry_run_prints_the_commands_and_writes_nothing(submit):
    shown = submit(*PHASES, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    first, second = shown.stdout.splitlines()
    assert first.startswith(f"source {ROOT}/slurm/configs/cpu_2x2.sh && PRESET=")
    assert "PHASE=second" in second and "--dependency=afterok:JOB_OF_first" in second
    assert not submit.folder.exists() and not submit.calls.exists()


def test_same_command_continues_with_the_first_incomplete_phase(submit):
    assert submit(*PHASES, "--seed", "5").returncode == 0
    run = submit.folder / "run_1"
    run.mkdir()
    state = '{"status": "phase complete", "resumable": true, "phase": "first"}'
    (run / "run.json").write_text(state)
    write_checkpoint(run, step=4, phase=1)
    queued = submit(*PHASES, "--seed", "5", "--no-checks", QUEUED="yes")
    assert queued.returncode == 2 and "scancel 11 12" in queued.stderr
    other = submit(*PHASES, "--seed", "6", "--no-checks")
    assert other.returncode == 2 and "is of another training" in other.stderr
    assert submit(*PHASES, "--seed", "5").returncode == 0
    third = submit.calls.read_text().splitlines()[2]
    assert third.startswith("second ") and "--dependency" not in third
    (run / "run.json").write_text('{"status": "finished", "outcome": "success"}')
    done = submit(*PHASES, "--seed", "5")
    assert done.returncode == 0 and "all phases are complete" in done.stdout
    (run / "run.json").write_text('{"status": "finished", "outcome": "target not reached"}')
    out_of_steps = submit(*PHASES, "--seed", "5")
    assert out_of_steps.returncode == 2 and "used up its steps" in out_of_steps.stderr
    assert len(submit.calls.read_text().splitlines()) == 3


def test_jobs_before_a_refused_one_are_canceled(submit):
    shown = submit(*PHASES, "--no-checks", REFUSED="second")
    assert shown.returncode == 2
    assert "no such partition" in shown.stderr
    assert "the job of phase second was not accepted" in shown.stderr
    assert pathlib.Path(f"{submit.calls}.canceled").read_text() == "11\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no --phase"),
        (("--phase", "first"), "expected NAME=VALUE"),
        (("--phase", "first=cpu_2x2", "--phase", "first=cpu_2x2"), "phase first is given twice"),
        (("--phase", "first=nowhere"), "slurm/configs/nowhere.sh does not exist"),
        (("--phase", "first=cpu_throughput"), "has INSTANCES=2; expected a configuration with 1"),
        (
            ("--phase", "first=cpu_2x2"),
            "expected one for each phase of the preset, in their order: first, second",
        ),
        ((*PHASES, "--walltime", "third=1:00"), "--walltime of third: no --phase has this name"),
        ((*PHASES, "--data-dir", "nowhere"), "nowhere does not exist"),
        ((*PHASES, "--fast"), "unknown argument --fast"),
        ((*PHASES, "--seed"), "--seed needs a value"),
    ],
)
def test_wrong_arguments_are_refused(submit, arguments, message):
    shown = submit(*arguments)
    assert shown.returncode == 2 and message in shown.stderr, shown.stderr
    assert not submit.folder.exists() and not submit.calls.exists()


def test_ranks_that_do_not_fit_a_phase_are_refused(submit, tmp_path):
    config = (ROOT / "slurm/configs/cpu_2x2.sh").read_text()
    settings = f'. "{ROOT}/slurm/settings.sh"'
    lines = [settings if line.startswith(". ") else line for line in config.splitlines()]
    text = "\n".join(lines).replace("NODES=2", "NODES=3")
    (tmp_path / "three.sh").write_text(text)
    shown = submit("--phase", "first=three.sh", "--phase", "second=cpu_2x2")
    assert shown.returncode == 2
    assert "phase first (1 of 2) does not fit 6 ranks" in shown.stderr, shown.stderr
    unchecked = submit("--phase", "first=three.sh", "--phase", "second=cpu_2x2", "--no-checks")
    assert unchecked.returncode == 0 and len(submit.calls.read_text().splitlines()) == 2
