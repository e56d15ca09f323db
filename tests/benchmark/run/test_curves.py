"""Curves of a run: robust against damaged lines, cheap for long runs, phases marked."""

import json
import struct

import numpy as np
import pytest

from benchmark.run.curves import (
    MAX_POINTS,
    LossCurve,
    draw_evaluations,
    draw_losses,
    read_losses,
    running_mean,
    thinned,
)
from benchmark.run.phase_record import read_phase_records
from benchmark.run.summary import SummaryObserver
from tests.support.phased_run import (
    evaluation_report,
    phase_report,
    step_report,
    write_config,
    write_reports,
)


def size_of_picture(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def curve_of(losses):
    steps = np.arange(1, len(losses) + 1)
    return LossCurve(steps=steps, samples_seen=2 * steps, losses=np.asarray(losses, float))


@pytest.fixture
def drawn_lines(monkeypatch):
    """Return the lines and the texts of every figure that is saved."""
    from matplotlib.figure import Figure

    found = []

    def savefig(self, path, **options):
        (axes,) = self.axes
        lines = {line.get_label(): line for line in axes.get_lines()}
        found.append((axes, lines, [text.get_text() for text in axes.texts]))

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def test_damaged_lines_are_skipped_and_repeated_steps_count_once(tmp_path):
    path = tmp_path / "steps.jsonl"
    line = {"step": 1, "samples_seen": 2, "loss": 3.0}
    texts = [
        json.dumps(line),
        json.dumps(line | {"step": 2, "samples_seen": 4, "loss": 2.5}),
        '{"step": 3, "samples_',
        "[1]",
        "7",
        '{"loss": 1.0}',
        "\x00\x00",
        json.dumps(line | {"step": 2, "samples_seen": 4, "loss": 2.25}),
        json.dumps(line | {"step": 3, "samples_seen": 6, "loss": None}),
    ]
    path.write_bytes("\n".join(texts).encode() + b'\n\xff\xfe{"step"')
    found = read_losses(path)
    assert found.steps.tolist() == [1, 2, 3] and found.samples_seen.tolist() == [2, 4, 6]
    assert found.losses.tolist()[:2] == [3.0, 2.25] and np.isnan(found.losses[2])
    assert len(read_losses(tmp_path / "missing").steps) == 0


@pytest.mark.parametrize("losses", [[1.0], [float("nan")], [1.0, float("nan"), 2.0], [-1.0, 1.0]])
def test_few_losses_can_be_drawn(tmp_path, losses):
    draw_losses(curve_of(losses), tmp_path / "loss.png")
    assert size_of_picture(tmp_path / "loss.png") == (840, 480)


def test_long_runs_are_thinned(tmp_path, drawn_lines):
    losses = np.linspace(100.0, 1.0, 60_000)
    draw_losses(curve_of(losses), tmp_path / "loss.png")
    ((axes, lines, _),) = drawn_lines
    assert set(lines) == {"mean of 30 steps", "running mean of 1200 steps"}
    assert all(len(line.get_xdata()) <= MAX_POINTS for line in lines.values())
    assert axes.get_yscale() == "log"


def test_means_of_groups_and_windows():
    values = np.array([1.0, 3.0, 5.0, 7.0, 10.0])
    assert thinned(values, 2).tolist() == [2.0, 6.0, 10.0]
    assert thinned(values, 1).tolist() == values.tolist()
    assert thinned(np.array([]), 3).tolist() == []
    assert running_mean(values, 2).tolist() == [2.0, 4.0, 6.0, 8.5]
    assert running_mean(values, 5).tolist() == pytest.approx([5.2])


def test_phases_are_read_from_the_newest_records(tmp_path):
    write_config(tmp_path, 1)
    write_config(tmp_path, 2, name="config_phase_2.json")
    (tmp_path / "config_continued_1.json").write_text("{")
    (tmp_path / "config_continued_2.json").write_text('{"phase": 3}')
    assert [(p.name, p.steps_before) for p in read_phase_records(tmp_path)] == [
        ("first", 0),
        ("second", 40),
    ]


def test_starts_of_phases_are_marked_in_both_pictures(tmp_path, drawn_lines):
    write_config(tmp_path, 1)
    write_config(tmp_path, 2, name="config_phase_2.json")
    write_reports(tmp_path, 80)
    phases, curve = read_phase_records(tmp_path), read_losses(tmp_path / "steps.jsonl")
    draw_losses(curve, tmp_path / "loss.png", phases=phases)
    evaluations = [evaluation_report(step) for step in (20, 60, 80)]
    draw_evaluations(
        evaluations, tmp_path / "scores.png", target_lddt_ca=0.9, phases=phases, curve=curve
    )
    positions = [
        [line.get_xdata()[0] for line in lines.values() if line.get_linestyle() == ":"]
        for _, lines, _ in drawn_lines
    ]
    # The first phase has 40 steps of two samples; no evaluation is at its end.
    assert positions == [[40.5], [80.0]]
    assert [texts for _, _, texts in drawn_lines] == [["phase second"]] * 2


def test_boundary_without_a_known_number_of_samples_is_not_drawn(tmp_path, drawn_lines):
    write_config(tmp_path, 1)
    write_config(tmp_path, 2, name="config_phase_2.json")
    phases = read_phase_records(tmp_path)
    draw_evaluations(
        [evaluation_report(60)], tmp_path / "scores.png", target_lddt_ca=0.9, phases=phases
    )
    ((_, _, texts),) = drawn_lines
    assert texts == []


def test_end_of_a_phase_draws_except_the_last(tmp_path):
    observer = SummaryObserver(tmp_path, target_lddt_ca=0.9)
    for step in range(1, 41):
        observer.step(step_report(step))
    observer.evaluation(evaluation_report(40))
    observer.phase_stop(phase_report(2))
    assert not list(tmp_path.glob("*.png"))
    observer.phase_stop(phase_report(1))
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"loss_curve.png", "evaluation_curve.png"}
