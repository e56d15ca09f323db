"""Programs that create a loader with and without the main-module guard."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import sys
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.workers import WorkerStream
from tests.loader.test_main_module import Numbers

def main():
    config = LoaderConfig(num_workers=1, start_method=sys.argv[1])
    with WorkerStream(Numbers(), config=config, end=2) as deliveries:
        print([int(delivery.arrays["number"]) for delivery in deliveries])
"""


class Numbers:
    """A task that returns the position."""

    def __call__(self, position):
        return position, {"number": np.array(position)}

    def describe(self, position):
        return f"number {position}"


def run(text, start_method, *, as_file):
    source = str(as_file) if as_file else "-"
    if as_file:
        as_file.write_text(text)
    command = [sys.executable, source, start_method]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, input=None if as_file else text, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_program_without_guard_gets_an_error_that_names_the_guard(tmp_path, start_method):
    ended = run(PROGRAM + "\nmain()\n", start_method, as_file=tmp_path / "program.py")
    assert ended.returncode == 1 and ended.stdout == ""
    assert (
        ended.stderr.splitlines()[-1].count('call the function below `if __name__ == "__main__":`')
        == 1
    )
    assert "attempt 3" not in ended.stderr


def test_program_with_guard_runs(tmp_path):
    ended = run(
        PROGRAM + '\nif __name__ == "__main__":\n    main()\n',
        "forkserver",
        as_file=tmp_path / "program.py",
    )
    assert (ended.returncode, ended.stdout) == (0, "[0, 1]\n"), ended.stderr


def test_program_from_standard_input_is_rejected():
    ended = run(PROGRAM + "\nmain()\n", "forkserver", as_file=None)
    assert ended.returncode == 1
    assert "its file <stdin> does not exist; write the program to a file" in ended.stderr
