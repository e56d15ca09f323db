"""run_and_time.sh: the RESULT line, refusals, and several ranks."""

import os
import shutil
import subprocess

import pytest

from tests.support.run_and_time import ROOT, run_and_time


def environment(**changes):
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def make_command(folder, name, text):
    """Write an executable. Return a PATH that begins with its folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/usr/bin/env bash\n" + text)
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def run_script(folder, path, **variables):
    """Run run_and_time.sh with the preset `tiny_target`, which ends after seconds."""
    command, changes = run_and_time(folder, preset="tiny_target")
    variables = {"PATH": path, "SUBMISSION_ORG": "me"} | changes | variables
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment(**variables)
    )


def test_the_result_does_not_depend_on_the_wall_clock(tmp_path):
    """`date` goes back one hour from its third call on."""
    calls, date = tmp_path / "calls", shutil.which("date")
    script = (
        f'echo call >>"{calls}"\n'
        f'[ "$(wc -l <"{calls}")" -lt 3 ] || set -- -d "1 hour ago" "$@"\n'
        f'exec {date} "$@"\n'
    )
    path = make_command(tmp_path / "bin", "date", script)
    result = run_script(tmp_path, path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    name, benchmark, empty, seconds, submitter, start = line.split(",")
    assert (name, benchmark, empty, submitter) == ("RESULT", "OPENFOLD_HPC", "", "me")
    assert 0 <= int(seconds) < 300 and len(start) > 10


@pytest.mark.parametrize("name", ["A, B", "two\nlines", 'a "name"'])
def test_names_that_break_the_result_line_are_refused(tmp_path, name):
    result = run_script(tmp_path, os.environ["PATH"], SUBMISSION_ORG=name)
    assert result.returncode == 2
    assert "expected a name without commas, quotes and line ends" in result.stderr
    assert not (tmp_path / "out").exists()


def test_all_ranks_need_one_output_directory(tmp_path):
    result = subprocess.run(
        [ROOT / "run_and_time.sh", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment(RANK="1", WORLD_SIZE="2"),
        timeout=120,
    )
    assert result.returncode == 2
    assert "2 ranks need one common directory; name it with --output-dir" in result.stderr


def test_only_the_first_rank_reports(tmp_path):
    result = subprocess.run(
        [
            ROOT / "run_and_time.sh",
            "--data-dir",
            str(tmp_path),
            "--output-dir",
            str(tmp_path / "out"),
            "--seed",
            "-1",
        ],
        capture_output=True,
        text=True,
        env=environment(RANK="1", WORLD_SIZE="2"),
        timeout=120,
    )
    assert result.returncode == 2
    assert "TIMING RUN" not in result.stdout and "RESULT" not in result.stdout
