"""docs/plan.md has the figures that the stored counts and results give."""

from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.plan.published import published_results
from benchmark.plan.step_counts import read_table
from benchmark.plan.validation import validate

DOCUMENT = Path(__file__).parents[3] / "docs" / "plan.md"


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


def test_rank_of_the_published_split(document, validation):
    assert f"at rank {validation.search.rank} of {validation.search.num_splits:,}" in document


def test_what_is_expected_of_this_project(document, capsys):
    assert main(["plan", "table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(line in document for line in lines)
