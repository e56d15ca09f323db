"""The counts that ship: every step has a command that writes it again."""

import re

import pytest

from benchmark.__main__ import main
from benchmark.plan import counts_command
from benchmark.plan.step_counts import NVIDIA, PROJECT, read_table, shape_name
from benchmark.plan.stored_counts import SHIPPED, add_counts
from benchmark.plan.train_command import phases_named
from tests.support.step_counts import small_step


@pytest.fixture
def traced(monkeypatch):
    """Replace tracing by small counts, and return what was asked for."""
    asked = []

    def count_step(config, code, dap, source):
        asked.append((code, shape_name(config), dap))
        return small_step(code, dap, shape=shape_name(config), source=source)

    monkeypatch.setattr(counts_command, "count_step", count_step)
    monkeypatch.setattr(counts_command, "import_with_triton", lambda module: None)
    return asked


def test_every_stored_step_can_be_counted_again():
    requests = {
        (request.code, shape_name(phase.config), dap)
        for request in SHIPPED
        for phase in phases_named(request.preset, None)
        for dap in request.dap_sizes
    }
    assert {step.name for step in read_table().steps} == requests


@pytest.mark.parametrize("step", read_table().steps, ids=lambda step: f"{step.name}")
def test_a_stored_step_names_its_command_commit_and_date(step):
    assert step.source.command.startswith("python -m benchmark plan counts --preset ")
    assert f"--code {step.code} --dap " in step.source.command
    assert str(step.dap) in step.source.command.partition("--dap ")[2].split()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", step.source.commit)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", step.source.date)


def test_stored_counts_are_counted_by_one_command(traced, tmp_path):
    out = tmp_path / "counts.json"
    assert main(["plan", "counts", "--stored", "--out", str(out)]) == 0
    assert set(traced) == {step.name for step in read_table().steps}
    assert [step.name for step in read_table(out).steps] == sorted(traced)


def test_every_phase_with_another_shape_is_counted(traced, tmp_path):
    out = tmp_path / "counts.json"
    assert main(["plan", "counts", "--preset", "demo_full", "--dap", "1", "--out", str(out)]) == 0
    shapes = {shape_name(phase.config) for phase in phases_named("demo_full", None)}
    assert {shape for _, shape, _ in traced} == shapes and len(shapes) > 1
    assert len(traced) == len(shapes)


def test_counts_of_the_same_step_are_replaced(tmp_path):
    out = tmp_path / "counts.json"
    for step in (
        small_step(NVIDIA, 2),
        small_step(PROJECT, 1),
        small_step(NVIDIA, 2, num_blocks=7),
    ):
        add_counts(out, step)
    assert [(step.code, step.num_blocks) for step in read_table(out).steps] == [
        (NVIDIA, 7),
        (PROJECT, 48),
    ]


def test_a_preset_that_does_not_exist_is_named(capsys):
    assert main(["plan", "counts", "--preset", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
