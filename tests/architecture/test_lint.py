"""Static checks of the checkout: ruff check, ruff format and mypy, as in `make lint`."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The commands write no caches to the checkout.
COMMANDS = {
    "ruff check": ["ruff", "check", "--no-cache"],
    "ruff format": ["ruff", "format", "--check", "--no-cache"],
    "mypy": ["mypy", f"--cache-dir={os.devnull}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_checkout_passes(name):
    tool, *arguments = COMMANDS[name]
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed; install the project with the extra 'tests'")
    command = [sys.executable, "-m", tool, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"{name} failed:\n{(result.stdout + result.stderr)[-5000:]}"
