"""python -m tests.train.many_kills [TIMES [SEED]]: kill -9 of any one rank of three at a random moment, again and again.

Two ranks train and one evaluates, under torchrun. Each time the job must end within a minute, name the rank, and a second start must
go on with the losses of the uninterrupted run. Prints a line for each; the exit code is the number of failures.
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

from tests.train.ranks import ROOT

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
    "tests.train.tiny_run",
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


def one_kill(folder: Path, rank: int, moment: float, whole: dict[int, str]) -> str | None:
    """What went wrong, or None."""
    first, second = folder / "first.txt", folder / "second.txt"
    launcher = start(folder / "run", first)
    time.sleep(moment)
    # so early the launcher may not have started the ranks yet
    while (victim := process_of_rank(launcher.pid, rank)) is None:
        if launcher.poll() is not None:
            return "the run was over before its moment came"
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
        f"rank {rank} killed {moment:5.1f} s after the start, in step {done + 1}: ended after {seconds:.1f} s",
        end="",
        flush=True,
    )
    if f"rank {rank}" not in text and f"rank      : {rank}" not in text:
        return "the rank was not named"
    if start(folder / "run", second).wait(timeout=300) != 0:
        return f"the second start failed:\n{second.read_text()[-2000:]}"
    found = losses(second)
    wrong = [step for step, loss in found.items() if whole[step] != loss]
    print(f", went on from step {min(found, default=MAX_STEPS + 1)}", flush=True)
    # killed after its last checkpoint, there is no step left
    return (
        f"other losses at steps {wrong}"
        if wrong or max(found, default=MAX_STEPS) < MAX_STEPS
        else None
    )


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "whole.txt"
        began = time.monotonic()
        if start(Path(folder) / "whole", output).wait(timeout=300) != 0:
            raise SystemExit(f"the uninterrupted run failed:\n{output.read_text()[-3000:]}")
        duration = time.monotonic() - began
        print(f"uninterrupted: {duration:.1f} s", flush=True)
        for number in range(times):
            case = Path(folder) / str(number)
            case.mkdir()
            complaint = one_kill(
                case, rng.randrange(NUM_RANKS), rng.uniform(1.0, 0.8 * duration), losses(output)
            )
            if complaint is not None:
                failures += 1
                print(f"\nFAILED: {complaint}", flush=True)
    print(f"{times - failures} of {times} as they should be")
    return failures


if __name__ == "__main__":
    sys.exit(main())
