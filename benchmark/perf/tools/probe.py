"""Run a part of a measurement in a separate process, which prints its metrics as lines of JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.perf_record import to_json

_MESSAGE_CHARACTERS = 4000
_SUMMARY_CHARACTERS = 400


def run_probe(module: str, settings: Any, *, name: str) -> Iterator[Any]:
    """Start `python -m module SETTINGS` and yield every JSON object that it prints.

    Args:
        module: The probe; its argument is the settings as JSON.
        settings: Settings of the probe, a dataclass.
        name: Name of the process in messages.

    Raises:
        BenchmarkError: See run_process.
    """
    command = [sys.executable, "-m", module, json.dumps(to_json(settings))]
    yield from run_process(command, name=name)


def run_process(
    command: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Any]:
    """Start a process and yield every JSON object that it prints.

    The process is killed if the iteration ends early. Other lines of its standard output go to
    standard error.

    Args:
        command: The program and its arguments.
        name: Name of the process in messages.
        environment: Its environment; None: that of this process.
        folder: Its working directory; None: that of this process.

    Raises:
        BenchmarkError: The process failed. The error has the last line of its messages; all are
        printed to standard error.
    """
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment,
            cwd=folder,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
                else:
                    sys.stderr.write(line)
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
        if process.returncode != 0:
            messages.seek(0)
            text = messages.read()
            print(text[-_MESSAGE_CHARACTERS:], file=sys.stderr)
            raise BenchmarkError(f"{name} {_ending(process.returncode)}: {_last_line(text)}")


def _ending(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "was killed, as Linux does when memory runs out"
    return f"ended with exit code {returncode}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_SUMMARY_CHARACTERS] if lines else "it printed no message"
