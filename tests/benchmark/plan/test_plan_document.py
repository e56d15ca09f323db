"""docs/plan.md has the figures that the stored counts and results give."""

import json
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.plan import table_command
from benchmark.plan.code_bases import CODE_BASES, HostLaunches
from benchmark.plan.published import published_results
from benchmark.plan.step_counts import NVIDIA, PROJECT, REFERENCE, CountTable, read_table
from benchmark.plan.validation import validate

DOCUMENT = Path(__file__).parents[3] / "docs" / "plan.md"
RECORD = DOCUMENT.parents[1] / "results" / "measured" / "2026-11-30_perf_host.json"


@pytest.fixture(scope="module")
def document():
    return DOCUMENT.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def validation():
    return validate(published_results(), read_table())


def percent(error, *, decimals=1):
    return f"{error:+.{decimals}%}".replace("%", " %")


def test_steps_of_published_systems(document, validation):
    for row in validation.steps:
        figures = f"{row.measured:.3f} | {row.predicted:.3f} | {percent(row.error)}"
        assert f"| {row.title} | {figures} |" in document
    mean, worst = (100 * each for each in (validation.mean_error, validation.worst_error))
    assert f"| mean, worst | | | {mean:.1f} %, {worst:.1f} % |" in document


def test_minutes_of_published_systems(document, validation):
    for row in validation.runs:
        minutes = f"{row.least:.1f} to {row.most:.1f} | {row.mean:.1f} | {row.predicted:.1f}"
        assert f"| {row.title} | {minutes} | {'yes' if row.is_within else 'no'} |" in document


def test_other_publications(document, validation):
    for row in validation.others:
        figures = f"{row.measured:.3g} | {row.predicted:.3g} | {percent(row.error)}"
        assert f"| {row.title} | {figures} | {row.source} |" in document


def test_speedups_of_figure_1(document, validation):
    for name, code in (("OpenFold", REFERENCE), ("NVIDIA's code", NVIDIA)):
        points = {each.num_gpus: each for each in validation.curves[code]}
        cells = []
        for num_gpus in (8, 64, 128, 256, 512, 1024, 2048):
            point = points.get(num_gpus)
            group = f" (DAP {point.dap})" if point and point.dap > 1 else ""
            cells.append(f"{point.speedup:.1f}{group}" if point else "")
        assert f"| {name} | {' | '.join(cells)} |" in document


def test_rank_of_the_published_split(document, validation):
    assert f"at rank {validation.search.rank} of {validation.search.num_splits:,}" in document


def test_launches_of_the_reference(document):
    """The planner and the document have the launches of the record."""
    figures = json.loads(RECORD.read_text())["figures"]
    launches, views = figures["launches"], figures["views"]
    for part, number in launches.items():
        assert f"| {part} | {number:,} | {views[part]:,} |" in document
    kept = launches["backward pass without recomputation"]
    gradient = launches["forward pass"] + launches["losses"] + kept
    reference = CODE_BASES[REFERENCE]
    assert reference.host_launches == HostLaunches(
        gradient=gradient,
        recomputation=launches["backward pass"] - kept,
        iteration=launches["recycling iteration"],
    )
    mean = gradient + launches["backward pass"] - kept + 1.5 * launches["recycling iteration"]
    assert reference.optimizer_launches == 150_853 - mean
    assert f"{mean:,.0f} launches" in document
    assert f"which leaves {reference.optimizer_launches:,} for the optimizer" in document


def test_a_table_is_printed_whole_or_not_at_all(capsys, monkeypatch):
    table = read_table()
    some = [step for step in table.steps if (step.code, step.dap) != (PROJECT, 8)]
    monkeypatch.setattr(table_command, "read_table", lambda: CountTable(steps=some))
    assert main(["plan", "table"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "no counts of project with DAP 8" in shown.err


def test_what_is_expected_of_this_project(document, capsys):
    assert main(["plan", "table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(line in document for line in lines)
