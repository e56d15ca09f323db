"""Start the tiny run on several ranks of this machine, without a launcher."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from openfold_opt.parallel.process_exit import run_program
from tests.support import tiny_run
from tests.support.fork_server import fork_server
from tests.support.gloo_ranks import free_port, launch_variables

ROOT = Path(__file__).resolve().parents[2]


class Ranks:
    """The processes of a run."""

    def __init__(self, folder: Path, num_ranks: int, max_steps: int, **changes) -> None:
        port = free_port()
        arguments = [str(folder), str(max_steps), json.dumps(changes)]
        self._files = [tempfile.NamedTemporaryFile("r") for _ in range(num_ranks)]
        """Output of the processes."""
        self.processes = [
            fork_server().Process(
                target=_run_rank,
                args=(arguments, launch_variables(rank, num_ranks, port=port), file.name),
            )
            for rank, file in enumerate(self._files)
        ]
        for process in self.processes:
            process.start()
        self.lines: list[str] = []
        """Output of the first rank."""

    def wait_for(self, start: str) -> str:
        """Read the output of the first rank up to a line with this start, and return the line."""
        output = self._files[0]
        while True:
            # A rank that has ended writes no line after this.
            is_running = self.processes[0].is_alive()
            position = output.tell()
            line = output.readline()
            if line.endswith("\n"):
                self.lines.append(line.rstrip("\n"))
                if line.startswith(start):
                    return self.lines[-1]
            elif is_running:
                output.seek(position)
                time.sleep(0.005)
            else:
                raise AssertionError(
                    f"the first rank ended without a line {start!r}:\n"
                    + "\n".join([*self.lines[-20:], line])
                )

    def send_signal(self, rank: int, number: int) -> None:
        """Send a signal to one rank."""
        os.kill(self.processes[rank].pid, number)

    def end(self, *, timeout: float = 120.0) -> list[tuple[int, str]]:
        """Wait for all ranks, and return the exit code and output of each.

        The exit code is negative for a signal. The output of the first rank begins after the last
        `wait_for`. Raises TimeoutError if a rank runs longer than timeout, in seconds.
        """
        results = []
        try:
            for process, file in zip(self.processes, self._files, strict=True):
                process.join(timeout)
                if process.is_alive():
                    raise TimeoutError(f"a rank still runs after {timeout} s:\n{file.read()}")
                results.append((process.exitcode, file.read()))
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


def _run_rank(arguments: list[str], variables: dict[str, str], output: str) -> None:
    """Run `python -m tests.support.tiny_run` in this process, with its output in a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    os.environ.update(variables)
    # The fork server has blocked signals if a thread of a loader started it.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sys.argv = [tiny_run.__file__, *arguments]
    run_program(tiny_run.main)
