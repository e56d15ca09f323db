"""python -m tests.slurm.scenarios [NAME ...]: submission jobs on a real Slurm of two virtual nodes.

Every job runs from a copy of the checkout with a short preset. It prints a line for each scenario;
the exit code is the number of failures. It needs root, slurm-wlm and munge, and takes a few minutes
on two idle cores.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = (".git", ".venv", "data", "runs", ".pytest_cache", "shared")
"""Folders that are not copied. Compiled code is copied, so that jobs do not compile it again."""
LIMIT_SECONDS = 900
PRESET = """
import dataclasses
from benchmark.presets import {base}

def build():
    config = {base}.build()
    evaluation = dataclasses.replace(config.evaluation, every_steps=2, target_lddt_ca={target})
    checkpoint = dataclasses.replace(config.checkpoint, every_steps=4)
    changes = {{"evaluation": evaluation, "checkpoint": checkpoint, "max_steps": {max_steps}}}
    return dataclasses.replace(config, **changes)
"""


class Cluster:
    """A cluster of two nodes, and a copy of the checkout for its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copy = folder / "checkout"
        shutil.copytree(ROOT, self.copy, ignore=shutil.ignore_patterns(*SKIPPED))
        if (ROOT / "data/demo/complete").exists():
            shutil.copytree(
                ROOT / "data/demo", self.copy / "data/demo", ignore=shutil.ignore_patterns("raw")
            )
        for name, values in {
            "demo_short": {"base": "demo_2x2", "target": 0.01, "max_steps": 4},
            "demo_short_dap2": {"base": "demo_dap2", "target": 0.01, "max_steps": 4},
            "demo_longer": {"base": "demo_2x2", "target": 0.99, "max_steps": 40},
        }.items():
            (self.copy / f"benchmark/presets/{name}.py").write_text(PRESET.format(**values))
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "cluster/slurm.conf"),
            "PYTHONPATH": str(self.copy),
            # The copy has no .venv, so its scripts use the Python of this process.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._control("start")

    def _control(self, verb: str) -> None:
        subprocess.run(
            [ROOT / "tools/local_slurm.sh", verb, self.folder / "cluster"],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self._control("stop")

    def submit(self, config: str, *options: str, how: str = "sbatch", **variables: str) -> Job:
        """Source a configuration and submit run.sub by sbatch."""
        settings = {
            "LOGDIR": str(self.folder / "logs"),
            "NEXP": "1",
            "CHECK_OPTIONS": "--below-target",
        } | variables
        exports = " ".join(f"{name}={value}" for name, value in settings.items())
        script = (
            f". slurm/configs/{config}.sh; export {exports}; "
            f"{how} --parsable --output={self.folder}/job-%j.out {' '.join(options)} slurm/run.sub"
        )
        shown = subprocess.run(
            ["bash", "-c", script],
            cwd=self.copy,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if shown.returncode:
            raise RuntimeError(shown.stderr)
        return Job(self, int(shown.stdout), config)

    def processes(self) -> dict[int, str]:
        """Return pid -> command line of the processes whose directory is the copy."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if process.joinpath("cwd").resolve() == self.copy:
                    found[int(process.name)] = (
                        process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
                    )
            except OSError:
                continue
        return found

    def process_of(self, words: str, *, rank: int) -> int:
        """Return the process of a rank with these words in its command line."""
        for number, command in self.processes().items():
            environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
            if words in command and f"SLURM_PROCID={rank}".encode() in environment:
                return number
        raise RuntimeError(f"no rank {rank} of {words!r}")


class Job:
    """A submitted job."""

    def __init__(self, cluster: Cluster, number: int, config: str) -> None:
        self.cluster, self.number = cluster, number
        self.folder = cluster.folder / "logs" / f"{config}-{number}"

    def output(self) -> str:
        path = self.cluster.folder / f"job-{self.number}.out"
        return path.read_text() if path.exists() else ""

    def state(self) -> dict[str, str]:
        command = ["scontrol", "--oneliner", "show", "job", str(self.number)]
        shown = subprocess.run(
            command, env=self.cluster.environment, capture_output=True, text=True, check=True
        )
        return dict(word.split("=", 1) for word in shown.stdout.split() if "=" in word)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no {what} within {LIMIT_SECONDS} s:\n{self.output()}")
            time.sleep(0.5)

    def exit_code(self) -> int:
        """Wait for the end of the job. Return its exit code."""
        self.wait_until(
            lambda: self.state()["JobState"].startswith(
                ("COMPLETED", "FAILED", "CANCEL", "TIMEOUT")
            ),
            "end of the job",
        )
        return int(self.state()["ExitCode"].split(":")[0])

    def signal(self, *options: str) -> None:
        subprocess.run(
            ["scancel", *options, str(self.number)], env=self.cluster.environment, check=True
        )

    def steps(self, run: int = 1) -> int:
        """Return the last step of a run. A resumed run repeats the steps after its checkpoint."""
        path = self.folder / f"run_{run}/steps.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1])["step"] if lines else 0


def two_runs_comply(cluster: Cluster) -> None:
    job = cluster.submit("cpu_2x2", PRESET="demo_short", NEXP="2")
    assert job.exit_code() == 0, job.output()
    verdicts = (job.folder / "compliance.txt").read_text()
    assert verdicts.count("PASS ") == 2, verdicts
    seeds = [json.loads((job.folder / f"run_{run}/run.json").read_text())["seed"] for run in (1, 2)]
    assert seeds[0] != seeds[1], seeds
    assert job.output().count("RESULT,OPENFOLD_HPC") == 2, job.output()
    assert "PASS all-reduce" in job.output() and "FAIL" not in job.output(), job.output()


def power_meters_are_started_and_stopped(cluster: Cluster) -> None:
    meter = cluster.folder / "meter"
    meter.write_text(
        f'#!/bin/sh\nmkdir -p "$1/power" && echo "$0 $(ls "$1")" >> {cluster.folder}/metered &&'
        ' exit "${METER_CODE:-0}"\n'
    )
    meter.chmod(0o755)
    settings = {"PRESET": "demo_short", "POWER_START": str(meter), "POWER_STOP": str(meter)}
    job = cluster.submit("cpu_2x2", **settings)
    assert job.exit_code() == 0, job.output()
    before, after = (cluster.folder / "metered").read_text().split(f"{meter} ")[1:]
    assert before.split() == ["power"] and "mlperf.log" in after.split(), (before, after)
    refused = cluster.submit("cpu_2x2", METER_CODE="3", **settings)
    assert refused.exit_code() == 2 and "ended with code 3" in refused.output(), refused.output()
    half = cluster.submit("cpu_2x2", PRESET="demo_short", POWER_STOP=str(meter))
    assert half.exit_code() == 2 and "POWER_START is empty" in half.output(), half.output()


def open_preset_is_refused_in_the_closed_division(cluster: Cluster) -> None:
    nameless = cluster.submit("cpu_2x2", PRESET="demo_short", DIVISION="closed")
    assert nameless.exit_code() == 2 and "SUBMISSION_ORG is not set" in nameless.output(), (
        nameless.output()
    )
    names = {"SUBMISSION_ORG": "Us", "SUBMISSION_PLATFORM": "virtual"}
    job = cluster.submit("cpu_2x2", PRESET="demo_short", DIVISION="closed", **names)
    assert job.exit_code() == 2, job.output()
    assert (
        "not of the closed division" in job.output()
        and "crop_size: 36 (mlperf_reference: 256)" in job.output()
    ), job.output()


def fault_in_the_log_fails_the_job(cluster: Cluster) -> None:
    source = cluster.copy / "benchmark/mlperf/log.py"
    whole = source.read_text()
    fault = whole.replace("constants.SUBMISSION_STATUS", '"submission_state"')
    assert fault != whole
    source.write_text(fault)
    try:
        job = cluster.submit("cpu_2x2", PRESET="demo_short")
        assert job.exit_code() == 1, job.output()
    finally:
        source.write_text(whole)
    assert "FAIL " in (job.folder / "compliance.txt").read_text()
    assert "'submission_status' but found 0" in job.output(), job.output()


def canceled_job_can_be_continued(cluster: Cluster) -> None:
    job = cluster.submit("cpu_2x2", PRESET="demo_longer")
    job.wait_until(lambda: job.steps() >= 3, "third step")
    job.signal()
    job.exit_code()
    job.wait_until(lambda: not cluster.processes(), "end of all processes")
    done = job.steps()
    assert json.loads((job.folder / "run_1/run.json").read_text())["status"] == "preempted"
    assert list((job.folder / "run_1/checkpoints").glob("step_*")), "no checkpoint"
    assert not list(job.folder.rglob("*.tmp")), "a temporary file remains"
    again = cluster.submit("cpu_2x2", PRESET="demo_longer", JOB_DIR=str(job.folder))
    assert again.exit_code() == 1, again.output()
    assert job.steps() == 40 and done < 40, (done, job.steps())
    assert "resumed run" in (job.folder / "compliance.txt").read_text()


def preempted_job_is_requeued(cluster: Cluster) -> None:
    job = cluster.submit("cpu_2x2", PRESET="demo_longer")
    job.wait_until(lambda: job.steps() >= 3, "third step")
    job.signal("--batch", "--signal=USR1")
    job.wait_until(lambda: job.state()["Restarts"] == "1", "restart")
    assert job.exit_code() == 1, job.output()
    assert job.steps() == 40
    assert "resumed run" in (job.folder / "compliance.txt").read_text()


def run_that_lost_a_rank_is_resumed(cluster: Cluster) -> None:
    job = cluster.submit("cpu_2x2", PRESET="demo_longer")
    job.wait_until(lambda: job.steps() >= 6, "sixth step")
    subprocess.run(
        ["kill", "-KILL", str(cluster.process_of("-m benchmark run", rank=3))], check=True
    )
    assert job.exit_code() == 1, job.output()
    assert "run 1 was interrupted and is resumed" in job.output(), job.output()
    assert job.steps() >= 40 and "resumed run" in (job.folder / "compliance.txt").read_text()


def throughput_of_two_instances(cluster: Cluster) -> None:
    job = cluster.submit("cpu_throughput", PRESET="demo_short_dap2")
    assert job.exit_code() == 0, job.output()
    assert (job.folder / "compliance.txt").read_text().count("PASS ") == 2
    lines = [(job.folder / f"run_{run}.log").read_text() for run in (1, 2)]
    assert "node1: ranks 0-1" in lines[0] and "node2: ranks 0-1" in lines[1], lines
    seeds = {json.loads((job.folder / f"run_{run}/run.json").read_text())["seed"] for run in (1, 2)}
    assert len(seeds) == 2, seeds


def too_few_nodes_are_refused(cluster: Cluster) -> None:
    job = cluster.submit("cpu_2x2", how="command sbatch", PRESET="demo_short")
    assert job.exit_code() == 2, job.output()
    assert (
        "found 1 nodes, expected 2" in job.output()
        and "--nodes=2 --ntasks-per-node=2" in job.output()
    ), job.output()


def checks_only_makes_no_run(cluster: Cluster) -> None:
    job = cluster.submit("cpu_2x2", PRESET="demo_short", CHECKS_ONLY="1")
    assert job.exit_code() == 0, job.output()
    assert "preflight: all checks passed" in job.output() and not (job.folder / "run_1").exists(), (
        job.output()
    )


def data_that_was_not_verified_stops_the_job(cluster: Cluster) -> None:
    data = cluster.folder / "unverified"
    shutil.copytree(
        cluster.copy / "data/demo/shards", data, ignore=shutil.ignore_patterns("*verified*")
    )
    job = cluster.submit("cpu_2x2", PRESET="demo_short", DATADIR=str(data))
    assert job.exit_code() == 2, job.output()
    assert "FAIL data verified" in job.output() and not (job.folder / "run_1").exists(), (
        job.output()
    )


SCENARIOS = (
    too_few_nodes_are_refused,
    two_runs_comply,
    checks_only_makes_no_run,
    data_that_was_not_verified_stops_the_job,
    open_preset_is_refused_in_the_closed_division,
    power_meters_are_started_and_stopped,
    throughput_of_two_instances,
    fault_in_the_log_fails_the_job,
    canceled_job_can_be_continued,
    preempted_job_is_requeued,
    run_that_lost_a_rank_is_resumed,
)


def run_scenarios(scenarios: Sequence[Callable[[Cluster], None]], names: Sequence[str]) -> int:
    """Run the scenarios with these names, or all without names. Return the number of failures."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        raise SystemExit(
            "these scenarios need root, slurm-wlm and munge; missing: "
            f"{', '.join(missing) or 'root'}"
        )
    chosen = [scenario for scenario in scenarios if not names or scenario.__name__ in names]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="scenarios-") as folder:
        cluster = Cluster(Path(folder).resolve())
        try:
            for scenario in chosen:
                began = time.monotonic()
                try:
                    scenario(cluster)
                    left = cluster.processes()
                    complaint = f"processes remain: {left}" if left else ""
                except (AssertionError, RuntimeError, OSError, ValueError, KeyError) as error:
                    complaint = f"{type(error).__name__}: {error}"
                failures += bool(complaint)
                print(
                    f"{scenario.__name__}: {complaint or 'ok'} ({time.monotonic() - began:.0f} s)",
                    flush=True,
                )
        finally:
            cluster.close()
    return failures


if __name__ == "__main__":
    sys.exit(run_scenarios(SCENARIOS, sys.argv[1:]))
