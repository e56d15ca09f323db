"""Every shell script passes shellcheck."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".venv", "data", "runs", "build", "shared", "artifacts"}


def shell_scripts() -> list[pathlib.Path]:
    """Files that end in .sh or .sub, and others whose first line names bash or sh."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        if path.relative_to(ROOT).parts[0] in SKIPPED or not path.is_file():
            continue
        if path.suffix in (".sh", ".sub"):
            found.append(path)
        elif not path.suffix and path.open("rb").readline().startswith(
            (b"#!/usr/bin/env bash", b"#!/bin/bash", b"#!/bin/sh")
        ):
            found.append(path)
    return found


def test_all_scripts_are_found():
    names = {str(path.relative_to(ROOT)) for path in shell_scripts()}
    assert {
        "run_and_time.sh",
        ".ci/run",
        "slurm/run.sub",
        "slurm/configs/cpu_2x2.sh",
        "tools/local_slurm.sh",
    } <= names


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("path", shell_scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_script_passes_shellcheck(path):
    shown = subprocess.run(
        ["shellcheck", "--external-sources", path.relative_to(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_a_fault_is_found(tmp_path):
    script = tmp_path / "bad.sh"
    script.write_text("#!/bin/bash\nrm -rf $1/*\n")
    assert subprocess.run(["shellcheck", script], capture_output=True).returncode == 1
