"""Start the tiny run on several ranks of this machine, without a launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.gloo_ranks import free_port

ROOT = Path(__file__).resolve().parents[2]


class Ranks:
    """The processes of a run."""

    def __init__(self, folder: Path, num_ranks: int, max_steps: int, **changes) -> None:
        port = str(free_port())
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.tiny_run",
                    str(folder),
                    str(max_steps),
                    json.dumps(changes),
                ],
                cwd=ROOT,
                env=os.environ
                | {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(num_ranks),
                    "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(num_ranks),
                }
                | {
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(num_ranks)
        ]
        self.lines: list[str] = []
        """Output of the first rank."""

    def wait_for(self, start: str) -> str:
        """Read the output of the first rank up to a line with this start, and return the line."""
        for line in self.processes[0].stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.lines[-1]
        raise AssertionError(
            f"the first rank ended without a line {start!r}:\n" + "\n".join(self.lines[-20:])
        )

    def end(self, *, timeout: float = 120.0) -> list[tuple[int, str]]:
        """Wait for all ranks, and return the exit code and output of each.

        The output of the first rank begins after the last `wait_for`.
        """
        try:
            results = []
            for process in self.processes:
                text, _ = process.communicate(timeout=timeout)
                results.append((process.returncode, text))
        finally:
            self.kill()
        self.lines += results[0][1].splitlines()
        return results

    def kill(self) -> None:
        """Kill all processes, so that none is left after a test."""
        for process in self.processes:
            process.kill()

    def words(self, first_word: str) -> list[list[str]]:
        """Return the first rank's lines that begin with a word, split into words."""
        return [line.split() for line in self.lines if line.split()[:1] == [first_word]]

    def losses(self) -> dict[int, float]:
        """Return the losses by step."""
        return {int(words[1]): float(words[3]) for words in self.words("step")}


def finished(folder: Path, num_ranks: int, max_steps: int, **changes) -> Ranks:
    """Run until the end, and check that every rank succeeds."""
    ranks = Ranks(folder, num_ranks, max_steps, **changes)
    results = ranks.end()
    assert [code for code, _ in results] == [0] * num_ranks, "\n".join(
        text[-3000:] for _, text in results
    )
    return ranks
