"""Setting up the environment of the tests with DALI, or without it if there is no wheel."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# An interpreter that runs only scripts from standard input. Its check for modules returns HAS_DALI
# for DALI, and HAS_TESTS for the modules of the tests.
FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
"- torch nvidia.dali") exit "${HAS_DALI:-1}" ;;
"- "*ruff*)
    # The modules of the tests are there once pip has run.
    [ -z "${LOG:-}" ] || [ -e "$LOG" ] && exit 0
    exit 1
    ;;
"- "*) exec "$REAL_PYTHON" "$@" ;;
"-m pip "*)
    [ -z "${LOG:-}" ] || echo pip >>"$LOG"
    for argument in "$@"; do
        case "$argument" in *.txt) sed "s/^/${argument##*/}: /" "$argument" ;; esac
    done
    exit "${PIP_STATUS:-0}"
    ;;
esac
"""


@pytest.fixture
def add_dali(tmp_path):
    """Return a function that calls add_dali in a copy of the checkout and returns its output.

    is_own: whether PYTHON is in the .venv of the checkout. call: the shell command instead.
    """
    checkout = tmp_path / "checkout"
    for name in ("tools/environment.sh", "pyproject.toml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    own, other = checkout / ".venv/bin/python", tmp_path / "python"
    for python in (own, other):
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)

    def run(*, is_own=True, call="add_dali", **variables):
        settings = "; ".join(f"export {name}={value}" for name, value in variables.items())
        script = f"set -euo pipefail; {settings or ':'}; . {checkout}/tools/environment.sh; "
        script += f"PYTHON={own if is_own else other}; {call}; echo end"
        environment = {**os.environ, "REAL_PYTHON": sys.executable}
        shown = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0 and shown.stdout.endswith("end\n"), shown.stderr
        return shown.stdout

    return run


def test_dali_is_installed_with_the_pins_of_the_tests(add_dali):
    text = add_dali()
    assert re.search(r"^dali\.txt: nvidia-dali-cuda130==[\d.]+$", text, re.MULTILINE)
    assert "pinned.txt: torch==" in text and "pinned.txt: pytest==" in text
    assert "cannot be installed" not in text


def test_installed_dali_is_not_installed_again(add_dali):
    assert add_dali(HAS_DALI="0") == "end\n"


def test_set_up_continues_without_a_wheel_of_dali(add_dali):
    assert "DALI cannot be installed on this machine" in add_dali(PIP_STATUS="1")


def test_an_interpreter_outside_the_checkout_is_not_changed(add_dali):
    text = add_dali(is_own=False)
    assert "its tests are skipped" in text and "dali.txt" not in text


def test_ready_is_the_last_line_of_a_set_up_with_dali(add_dali, tmp_path):
    text = add_dali(call="prepare_environment tests dali", LOG=tmp_path / "pip.log")
    assert "dali.txt: nvidia-dali" in text
    assert text.splitlines()[-2].startswith("[setup] ready: ")


def test_tests_are_set_up_with_dali():
    script = (ROOT / "run_tests.sh").read_text()
    assert re.search("^prepare_environment tests dali$", script, re.MULTILINE)
