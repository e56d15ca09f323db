"""Starts the tiny run on several ranks of this machine, without a launcher that would watch over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.parallel.gloo_ranks import free_port

ROOT = Path(__file__).resolve().parents[2]


class Ranks:
    """The processes of one start of a run."""

    def __init__(self, folder: Path, num_ranks: int, max_steps: int, **changes) -> None:
        port = str(free_port())
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.train.tiny_run",
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
        """What the first rank said."""

    def wait_for(self, start: str) -> str:
        """Read what the first rank says up to a line that starts so."""
        for line in self.processes[0].stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.lines[-1]
        raise AssertionError(
            f"the first rank ended without a line {start!r}:\n" + "\n".join(self.lines[-20:])
        )

    def end(self, *, timeout: float = 120.0) -> list[tuple[int, str]]:
        """Exit code of each rank and what it said, the first rank's since the last `wait_for`."""
        try:
            ends = []
            for process in self.processes:
                text, _ = process.communicate(timeout=timeout)
                ends.append((process.returncode, text))
        finally:
            self.kill()
        self.lines += ends[0][1].splitlines()
        return ends

    def kill(self) -> None:
        """No process outlives a test."""
        for process in self.processes:
            process.kill()

    def said(self, first_word: str) -> list[list[str]]:
        """Words of the first rank's lines that begin with a word."""
        return [line.split() for line in self.lines if line.split()[:1] == [first_word]]

    def losses(self) -> dict[int, float]:
        """By step."""
        return {int(words[1]): float(words[3]) for words in self.said("step")}


def finished(folder: Path, num_ranks: int, max_steps: int, **changes) -> Ranks:
    """A start that must end well."""
    ranks = Ranks(folder, num_ranks, max_steps, **changes)
    ends = ranks.end()
    assert [code for code, _ in ends] == [0] * num_ranks, "\n".join(
        text[-3000:] for _, text in ends
    )
    return ranks
