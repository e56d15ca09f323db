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


def run_script(folder, path=os.environ["PATH"], *, preset="tiny_target", ranks=1, **variables):
    """Run run_and_time.sh with the preset `tiny_target`, which ends after seconds."""
    command, changes = run_and_time(folder, preset=preset, ranks=ranks)
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
    result = run_script(tmp_path, SUBMISSION_ORG=name)
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


def test_the_script_starts_several_ranks(tmp_path):
    result = run_script(tmp_path, ranks=2)
    assert result.returncode == 0, result.stderr
    assert "training: 2 ranks = data 2 x dap 1" in result.stdout
    assert result.stdout.count("STARTING TIMING RUN") == 1
    assert result.stdout.count("RESULT,OPENFOLD_HPC") == 1


def test_a_rank_that_fails_gives_the_exit_code(tmp_path):
    """The second phase of `tiny_phases` needs two data ranks; the run is refused on three."""
    result = run_script(tmp_path, preset="tiny_phases", ranks=3)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "RESULT" not in result.stdout


@pytest.mark.parametrize("ranks", ["0", "-1", "two", "1000", "1.5"])
def test_a_number_of_ranks_that_is_none_is_refused(ranks):
    command = [ROOT / "run_and_time.sh", "--ranks", ranks]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert f"--ranks is {ranks}; expected a number of processes from 1 to 999" in result.stderr


@pytest.mark.parametrize("option", ["--preset", "--data-dir", "--output-dir", "--ranks", "--seed"])
def test_an_empty_value_is_no_default(option):
    command = [ROOT / "run_and_time.sh", option, ""]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"the value of {option} is empty" in result.stderr


@pytest.mark.parametrize("wrong", [{"RANK": "x"}, {"WORLD_SIZE": "two"}, {"SLURM_PROCID": "-1"}])
def test_variables_of_a_launcher_that_are_no_numbers_are_refused(wrong):
    result = subprocess.run(
        [ROOT / "run_and_time.sh"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(**wrong),
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1 and "expected numbers in" in result.stderr


@pytest.mark.parametrize("started", ["1", "2"])
def test_a_launcher_and_ranks_are_refused(tmp_path, started):
    result = run_script(tmp_path, ranks=2, RANK="0", WORLD_SIZE=started)
    assert result.returncode == 2
    assert f"--ranks 2, but a launcher started {started} ranks; leave out --ranks" in result.stderr
