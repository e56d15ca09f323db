"""python -m tests.slurm.chain_scenarios [NAME ...]: full_training.sh on a Slurm of two nodes.

Phase 1 runs on two ranks, phase 2 on four. It needs root, slurm-wlm and munge, and takes a few
minutes on two idle cores.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.slurm.scenarios import Cluster, Job, run_scenarios

PRESET = """
import dataclasses

from benchmark.presets import demo_ci
from openfold_opt.train.phase_config import PhaseConfig


def build():
    config = demo_ci.build()
    evaluation = dataclasses.replace(config.evaluation, every_steps=10)
    checkpoint = dataclasses.replace(config.checkpoint, every_steps=4)
    phases = (
        PhaseConfig(name="first", steps={first}, required_lddt_ca={required}),
        PhaseConfig(name="second", steps=10, global_batch_size=4, dap_size=2),
    )
    changes = {{"evaluation": evaluation, "checkpoint": checkpoint, "phases": phases}}
    sizes = {{"local_batch_size": 1, "global_batch_size": 2, "max_steps": 10 + {first}}}
    return dataclasses.replace(config, log_every_steps=1, **sizes, **changes)
"""
CONFIG = """
. "$(dirname "${BASH_SOURCE[0]:-$0}")/../settings.sh"
export SYSTEM=cpu_2x1 NODES=2 RANKS_PER_NODE=1 PRESET=demo_phases DIVISION=open
export WALLTIME=1:00:00 MIN_ALL_REDUCE_GB_S=0.01 BIND=none
"""


class Chain:
    """A training in two jobs.

    Args:
        cluster: where the jobs run.
        name: name of the directory, and of the preset after "demo_".
        required: score that the first phase requires.
        first_steps: steps of the first phase.
    """

    def __init__(self, cluster: Cluster, name: str, *, required: float, first_steps: int) -> None:
        self.cluster, self.folder = cluster, cluster.folder / name
        self.preset = f"demo_{name}"
        preset = cluster.copy / f"benchmark/presets/{self.preset}.py"
        preset.write_text(PRESET.format(required=required, first=first_steps))
        (cluster.copy / "slurm/configs/cpu_2x1.sh").write_text(CONFIG)

    def submit(self) -> list[Job]:
        """Submit the incomplete phases. Return their jobs."""
        before = self.jobs()
        shown = self._call(
            *("slurm/full_training.sh", "--preset", self.preset),
            *("--phase", "first=cpu_2x1", "--phase", "second=cpu_2x2"),
            *("--output-dir", str(self.folder), "--seed", "1"),
        )
        if shown.returncode:
            raise RuntimeError(shown.stderr)
        return [Job(self.cluster, number, "chain") for number in self.jobs()[len(before) :]]

    def jobs(self) -> list[int]:
        """Return the numbers of all jobs."""
        path = self.folder / "jobs.txt"
        return (
            [int(line.split()[1]) for line in path.read_text().splitlines()]
            if path.exists()
            else []
        )

    def status(self) -> str:
        """Return what `benchmark status` prints."""
        shown = self._call(sys.executable, "-m", "benchmark", "status", str(self.folder))
        assert shown.returncode == 0, shown.stderr
        return shown.stdout

    def output(self, job: Job) -> str:
        """Return the output of a job."""
        return (self.folder / f"job-{job.number}.out").read_text()

    def steps(self) -> list[dict]:
        """Return the lines of steps.jsonl."""
        path = self.folder / "run_1/steps.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def state(self) -> dict:
        """Return the content of run.json."""
        return json.loads((self.folder / "run_1/run.json").read_text())

    def log(self, phase: str) -> str:
        """Return the console of a phase."""
        return (self.folder / f"phase_{phase}.log").read_text()

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.cluster.copy,
            env=self.cluster.environment,
            capture_output=True,
            text=True,
        )


def preempted_chain_continues_on_other_ranks(cluster: Cluster) -> None:
    chain = Chain(cluster, "phases", required=0.01, first_steps=40)
    first, second = chain.submit()
    assert second.state()["Reason"] == "Dependency", second.state()
    first.wait_until(lambda: len(chain.steps()) >= 5, "fifth step")
    shown = chain.status()
    assert shown.startswith("running: phase first (1 of 2), step "), shown
    assert re.search(rf"^phase first +running; job {first.number} RUNNING; 2 ranks", shown, re.M), (
        shown
    )
    assert re.search(rf"^phase second +not started; job {second.number} PENDING", shown, re.M), (
        shown
    )
    first.signal("--batch", "--signal=USR1")
    first.wait_until(lambda: first.state()["Restarts"] == "1", "restart")
    assert first.exit_code() == 0, chain.output(first)
    assert second.exit_code() == 0, chain.output(second)
    print(chain.status())
    assert chain.state()["status"] == "finished" and chain.state()["outcome"] == "success"
    by_step = {line["step"]: line["samples_seen"] for line in chain.steps()}
    assert by_step == {step: 2 * step + 2 * max(0, step - 40) for step in range(1, 51)}, by_step
    assert "of 2 ranks on cpu" in chain.log("first") and "of 4 ranks on cpu" in chain.log("second")
    assert "RESULT," not in chain.log("first")
    preflight = [
        (chain.folder / f"preflight_{name}.log").read_text() for name in ("first", "second")
    ]
    assert "PASS ranks: 2 = 2 x dap 1" in preflight[0], preflight
    assert "PASS ranks: 4 = 2 x dap 2" in preflight[1], preflight
    names = {path.name for path in (chain.folder / "run_1").iterdir()}
    assert {"loss_curve.png", "evaluation_curve.png", "mlperf.log"} <= names, names
    print_files(chain)
    assert chain.submit() == [], "all phases are complete"


def failed_condition_ends_the_chain(cluster: Cluster) -> None:
    chain = Chain(cluster, "condition", required=0.999, first_steps=4)
    first, second = chain.submit()
    assert first.exit_code() == 1, chain.output(first)
    second.wait_until(lambda: second.state()["JobState"].startswith("CANCEL"), "canceled job")
    shown = chain.status()
    assert shown.startswith("condition failed: "), shown
    assert re.search(r"^phase first +failed: condition", shown, re.M), shown
    assert re.search(r"^phase second +not started; job \d+ CANCEL", shown, re.M), shown
    assert re.search(r"^continue +cd .* slurm/full_training.sh ", shown, re.M), shown


def canceled_chain_continues_with_the_first_incomplete_phase(cluster: Cluster) -> None:
    chain = Chain(cluster, "canceled", required=0.01, first_steps=4)
    first, second = chain.submit()
    assert first.exit_code() == 0, chain.output(first)
    second.wait_until(lambda: len(chain.steps()) >= 6, "sixth step")
    second.signal()
    second.exit_code()
    second.wait_until(lambda: not cluster.processes(), "end of all processes")
    (again,) = chain.submit()
    assert again.exit_code() == 0, chain.output(again)
    assert chain.state()["outcome"] == "success"
    assert max(line["step"] for line in chain.steps()) == 14


def print_files(chain: Chain) -> None:
    """Print the files of a chain."""
    for path in sorted(Path(chain.folder).rglob("*")):
        if path.is_file() and "checkpoints" not in path.parts:
            print(f"  {path.relative_to(chain.folder)} {path.stat().st_size}")


SCENARIOS = (
    preempted_chain_continues_on_other_ranks,
    failed_condition_ends_the_chain,
    canceled_chain_continues_with_the_first_incomplete_phase,
)

if __name__ == "__main__":
    sys.exit(run_scenarios(SCENARIOS, sys.argv[1:]))
