"""tools/environment.sh: the tests are set up with DALI, or without it where it has no wheel."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A Python of which only "python -" (scripts from standard input) is real, except that the check for
# modules answers HAS_DALI.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
"- torch nvidia.dali") exit "${HAS_DALI:-1}" ;;
"- "*) exec "$REAL_PYTHON" "$@" ;;
"-m pip "*)
    for argument in "$@"; do
        case "$argument" in *.txt) sed "s/^/${argument##*/}: /" "$argument" ;; esac
    done
    exit "${PIP_STATUS:-0}"
    ;;
esac
"""


@pytest.fixture
def add_dali(tmp_path):
    """Runs add_dali of a copied checkout; the argument says whether its own environment is used."""
    checkout = tmp_path / "checkout"
    for name in ("tools/environment.sh", "pyproject.toml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    own, other = checkout / ".venv/bin/python", tmp_path / "python"
    for python in (own, other):
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(STAND_IN)
        python.chmod(0o755)

    def run(*, is_own=True, **variables):
        settings = "; ".join(f"export {name}={value}" for name, value in variables.items())
        script = f"set -euo pipefail; {settings or ':'}; . {checkout}/tools/environment.sh; "
        script += f"PYTHON={own if is_own else other}; add_dali; echo ready"
        environment = {**os.environ, "REAL_PYTHON": sys.executable}
        shown = subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
        )
        assert shown.returncode == 0 and shown.stdout.endswith("ready\n"), shown.stderr
        return shown.stdout

    return run


def test_dali_is_installed_beside_the_pins_of_the_tests(add_dali):
    text = add_dali()
    assert re.search(r"^wanted\.txt: nvidia-dali-cuda130==[\d.]+$", text, re.MULTILINE)
    assert "held.txt: torch==" in text and "held.txt: pytest==" in text
    assert "cannot be installed" not in text


def test_nothing_is_installed_where_it_is_there(add_dali):
    assert add_dali(HAS_DALI="0") == "ready\n"


def test_without_a_wheel_the_set_up_says_so_and_goes_on(add_dali):
    assert "DALI cannot be installed on this machine" in add_dali(PIP_STATUS="1")


def test_another_python_is_left_as_it_is(add_dali):
    text = add_dali(is_own=False)
    assert "its tests are skipped" in text and "wanted.txt" not in text


def test_tests_are_set_up_with_dali():
    assert re.search(
        r"^prepare_environment tests\nadd_dali$", (ROOT / "run_tests.sh").read_text(), re.MULTILINE
    )
