"""The two installed programs, and the refusal of wrong command lines."""

import argparse
import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.command_line import describe_error, real_number, whole_number

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
AS_INSTALLED = (
    "import sys; from importlib.metadata import EntryPoint; "
    "name, value, *sys.argv = sys.argv[1:]; sys.argv.insert(0, name); "
    "sys.exit(EntryPoint(name, value, 'console_scripts').load()())"
)


def run_script(name, *arguments, **options):
    command = [sys.executable, "-c", AS_INSTALLED, name, SCRIPTS[name], *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **options)


def test_all_programs_are_installed():
    assert set(SCRIPTS) == {"openfold-data", "openfold-bench", "openfold-predict"}
    assert all(callable(EntryPoint(name, value, "").load()) for name, value in SCRIPTS.items())


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("openfold-data", "data_prep"),
        ("openfold-bench", "benchmark"),
        ("openfold-predict", "openfold_opt.predict"),
    ],
)
def test_a_program_is_its_module(name, module):
    as_script = run_script(name, "--help")
    as_module = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert as_script.returncode == as_module.returncode == 0
    assert as_script.stdout.startswith(f"usage: {name} ")
    assert as_module.stdout.startswith(f"usage: python -m {module} ")


def test_the_exit_code_is_the_command_s(tmp_path):
    refused = run_script("openfold-bench", "check", str(tmp_path))
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert run_script("openfold-data", "inspect", str(tmp_path / "nothing")).returncode == 1


def test_package_data_takes_part_in_an_installation():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    packages = ("benchmark", "data_prep", "openfold_opt")
    covered = {
        path
        for package, names in patterns.items()
        for name in names
        for path in (ROOT / package).glob(name)
    }
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *packages], cwd=ROOT, capture_output=True, text=True
    )
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    files = {
        ROOT / name for name in tracked.stdout.split("\0") if name and not name.endswith(".py")
    }
    assert files and files <= covered


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["check"],
        ["perf", "step", "--kernels", "nonsense"],
        ["controls", "--output-dir", "x", "--data-dir", "x"],
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    message = capsys.readouterr().err
    assert ended.value.code == 2 and len(message.splitlines()) == 1 and "--help" in message


def test_a_reader_that_ends_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "benchmark", "rules", "--preset", "demo"]
    ended = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_another_broken_pipe_is_an_error(monkeypatch, capfd):
    def break_down(args):
        raise BrokenPipeError("of a connection")

    monkeypatch.setattr("benchmark.mlperf.rules.run", break_down)
    with pytest.raises(BrokenPipeError):
        main(["rules", "--preset", "demo"])


def test_an_error_of_a_file_is_one_line(monkeypatch, capsys):
    def fail(args):
        raise OSError(28, "No space left on device", "/full/rules.json")

    monkeypatch.setattr("benchmark.mlperf.rules.run", fail)
    assert main(["rules", "--preset", "demo"]) == 2
    assert capsys.readouterr().err == "benchmark rules: /full/rules.json: No space left on device\n"


def test_an_error_without_a_file_is_one_of_the_program(monkeypatch):
    def fail(args):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("benchmark.mlperf.rules.run", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["rules", "--preset", "demo"])


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C", "LANG": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}],
)
@pytest.mark.parametrize("program", ["openfold-data", "openfold-bench"])
def test_a_locale_of_c(program, locale, tmp_path):
    folder = tmp_path / "Prot\u00e9ine"
    folder.mkdir()
    command = {"openfold-data": "inspect", "openfold-bench": "check"}[program]
    ended = run_script(program, command, folder, env=os.environ | locale)
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr and "Prot" in ended.stderr


def test_a_path_on_the_standard_output_in_a_locale_of_c(tmp_path):
    log = tmp_path / "Prot\u00e9ine.log"
    log.touch()
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    ended = run_script("openfold-bench", "check", log, env=os.environ | locale)
    assert (ended.returncode, ended.stderr) == (1, "") and "FAIL" in ended.stdout


def test_errors_of_the_system_have_no_number(tmp_path):
    with pytest.raises(OSError) as caught:
        (tmp_path / "absent").read_text()
    assert describe_error(caught.value) == f"{tmp_path / 'absent'}: No such file or directory"
    assert describe_error(OSError(28, "No space left on device")) == "No space left on device"
    assert describe_error(ValueError("wrong")) == describe_error(OSError("wrong")) == "wrong"


@pytest.mark.parametrize("text", ["nan", "inf", "1e300", "-0.5", "x", "", "1" * 5000, "0"])
def test_a_number_out_of_bounds_is_refused(text):
    for parse in (whole_number(1), real_number(more_than=0), real_number(at_least=0.5)):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a"):
            parse(text)


def test_a_number_within_bounds_is_read():
    assert (whole_number(1, 8)("8"), whole_number(0)("0")) == (8, 0)
    assert (real_number(at_least=0)("0"), real_number(more_than=0)("1e-3")) == (0.0, 0.001)
