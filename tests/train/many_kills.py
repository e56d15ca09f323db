"""Kill a random rank of a run at a random time, repeatedly.

Usage: python -m tests.train.many_kills [TIMES [SEED]]

Two ranks train and one evaluates, under torchrun. After each kill -9, the job must end within a
minute and name the rank, and a second start must resume with the losses of the uninterrupted run.
The program prints a line for each kill. Its exit code is the number of failures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.run_ranks import ROOT

NUM_RANKS, MAX_STEPS, STEP_SECONDS = 3, 30, 0.15
CHANGES = {
    "parallel": {"heartbeat_seconds": 4.0, "num_evaluation_ranks": 1},
    "checkpoint": {"every_steps": 2},
    "step_seconds": STEP_SECONDS,
}
LIMIT_SECONDS = 60.0
COMMAND = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    f"--nproc-per-node={NUM_RANKS}",
    "-m",
    "tests.support.tiny_run",
]


def start(folder: Path, output: Path) -> subprocess.Popen:
    with output.open("w") as file:
        return subprocess.Popen(
            [*COMMAND, str(folder), str(MAX_STEPS), json.dumps(CHANGES)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def process_of_rank(launcher: int, rank: int) -> int | None:
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment:
            return int(child)
    return None


def losses(output: Path) -> dict[int, str]:
    lines = [line.split() for line in output.read_text().splitlines()]
    return {int(words[1]): words[3] for words in lines if words[:1] == ["step"]}


def kill_once(folder: Path, rank: int, delay: float, expected: dict[int, str]) -> str | None:
    """Start a run, kill a rank after `delay` seconds, resume. Return an error message, or None."""
    first, second = folder / "first.txt", folder / "second.txt"
    launcher = start(folder / "run", first)
    time.sleep(delay)
    # The launcher may not have started the ranks yet.
    while (victim := process_of_rank(launcher.pid, rank)) is None:
        if launcher.poll() is not None:
            return "the run ended before the kill"
        time.sleep(0.05)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    try:
        launcher.wait(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        launcher.kill()
        return f"the job did not end within {LIMIT_SECONDS:.0f} s"
    seconds = time.monotonic() - killed
    text = first.read_text()
    done = max(losses(first), default=0)
    print(
        f"rank {rank} killed {delay:5.1f} s after the start, in step {done + 1}: "
        f"ended after {seconds:.1f} s",
        end="",
        flush=True,
    )
    if f"rank {rank}" not in text and f"rank      : {rank}" not in text:
        return "the rank was not named"
    if start(folder / "run", second).wait(timeout=300) != 0:
        return f"the second start failed:\n{second.read_text()[-2000:]}"
    found = losses(second)
    wrong = [step for step, loss in found.items() if expected[step] != loss]
    print(f", resumed at step {min(found, default=MAX_STEPS + 1)}", flush=True)
    # A run that was killed after its last checkpoint has no step left.
    if wrong or max(found, default=MAX_STEPS) < MAX_STEPS:
        return f"different losses at steps {wrong}"
    return None


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "whole.txt"
        started = time.monotonic()
        if start(Path(folder) / "whole", output).wait(timeout=300) != 0:
            raise SystemExit(f"the uninterrupted run failed:\n{output.read_text()[-3000:]}")
        duration = time.monotonic() - started
        print(f"uninterrupted: {duration:.1f} s", flush=True)
        for number in range(times):
            case = Path(folder) / str(number)
            case.mkdir()
            error = kill_once(
                case, rng.randrange(NUM_RANKS), rng.uniform(1.0, 0.8 * duration), losses(output)
            )
            if error is not None:
                failures += 1
                print(f"\nFAILED: {error}", flush=True)
    print(f"{times - failures} of {times} passed")
    return failures


if __name__ == "__main__":
    sys.exit(main())
