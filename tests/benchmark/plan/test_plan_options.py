"""Numbers and output files of the questions of `plan`."""

import argparse
import importlib
import json

import pytest

from benchmark.__main__ import main
from benchmark.plan import counts_command
from benchmark.plan.step_counts import PROJECT
from tests.support.step_counts import small_step

QUESTIONS = {
    "train": ["--preset", "mlperf_16x8_dap1", "--system", "h100_sxm"],
    "slurm": ["--preset", "mlperf_16x8_dap1", "--system", "h100_sxm", "--out", "out.sh"],
    "loader": ["--step-seconds", "1", "--groups", "1", "--windows", "0", "--steps", "5"],
    "search": ["--preset", "mlperf_16x8_dap1", "--system", "h100_sxm", "--gpus", "8"],
    "counts": ["--preset", "demo_ci", "--dap", "1"],
    "validate": [],
    "systems": [],
    "predict": ["--lengths", "16", "--extra-rows", "16", "--passes", "1"],
}
"""Question -> arguments with which it answers."""
NEEDED = {
    "--picture predict": ["--validate"],
    "--out systems": ["h100_sxm", "--calibrate", "kernels.json"],
}
"""Option and question -> arguments without which the option has no effect."""
KERNELS = {
    "measurement": "kernels",
    "figures": {
        "device": "cuda",
        "copy_bytes_per_second": 2e12,
        "matmul_flops_per_second": 5e14,
    },
}
WITHOUT_NUMBERS = ("validate", "systems")
WRONG = ("nan", "inf", "-1", "1e300", "9" * 5000, "x", "")


def options_of(question):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"benchmark.plan.{question}_command").add_arguments(parser)
    return [action for action in parser._actions if action.option_strings]


def numbers_of(question):
    """Return the options that take a number: neither text nor a path nor a choice."""
    return [
        action.option_strings[0]
        for action in options_of(question)
        if callable(action.type) and not isinstance(action.type, type)
    ]


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_number_has_bounds(question, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not [action for action in options_of(question) if action.type in (int, float)]
    for option in numbers_of(question):
        for text in WRONG:
            with pytest.raises(SystemExit) as ended:
                main(["plan", question, *QUESTIONS[question], f"{option}={text}"])
            message = capsys.readouterr().err
            assert ended.value.code == 2 and f"argument {option}: found" in message
    assert bool(numbers_of(question)) == (question not in WITHOUT_NUMBERS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "question"),
    [
        (action.option_strings[0], question)
        for question in QUESTIONS
        for action in options_of(question)
        if action.option_strings[0] in ("--json", "--png", "--picture", "--out")
    ],
)
def test_an_output_that_cannot_be_written_is_named(option, question, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.sh").mkdir()
    (tmp_path / "kernels.json").write_text(json.dumps(KERNELS))
    # Tracing takes seconds.
    monkeypatch.setattr(counts_command, "count_step", lambda *arguments: small_step(PROJECT, 1))
    extra = NEEDED.get(f"{option} {question}", [])
    for path in ("folder.sh", "absent/out.sh", "x" * 300 + ".sh", "/proc/out.sh"):
        arguments = [*QUESTIONS[question], *extra, option, path]
        assert main(["plan", question, *arguments]) == 2
        message = capsys.readouterr().err
        assert path in message and "Errno" not in message and len(message.splitlines()) == 1
