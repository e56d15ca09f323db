"""Structures that are predicted from raw files have the scores of the evaluation of the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.__main__ import main as benchmark
from tests.support.predicted_scores import (
    TOLERANCE,
    evaluated_scores,
    predict_chains,
    predicted_scores,
)

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "max_steps=24",
    "evaluation.every_steps=12",
    "checkpoint.every_steps=12",
    "schedule.warmup_steps=2",
    "loader.num_workers=0",
    "data.max_templates=2",
    "data.max_recycling_iterations=1",
    "data.masked_msa_fraction=0.4",
    "selection.validation_rule=chain_ids",
)


@pytest.fixture(scope="module")
def chain_ids(synthetic) -> list[str]:
    """Chains of three release dates. The last one has no template."""
    entries = {name: synthetic.reader().entry(name) for name in synthetic.chain_ids()}
    chosen = [*synthetic.chain_ids()[1:6:2], synthetic.chain_ids()[6]]
    assert len({entries[name].release_date for name in chosen}) == 3
    return chosen


@pytest.fixture(scope="module")
def run_dir(synthetic, chain_ids, tmp_path_factory) -> Path:
    """The output directory of a short run of the preset `demo_one_phase`."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = (*SETTINGS, f"selection.validation_chain_ids={','.join(chain_ids)}")
    command = [
        sys.executable,
        "-m",
        "benchmark",
        "run",
        "--preset",
        "demo_one_phase",
        "--seed",
        "1",
    ]
    command += ["--data-dir", str(synthetic.shards), "--output-dir", str(folder)]
    command += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    # Exit code 1: the run is too short to reach its target.
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return folder


def scores(synthetic, chain_ids, run_dir, out, *options):
    reader = synthetic.reader()
    files = predict_chains(
        chain_ids, reader, synthetic.raw, weights=run_dir, out=out, options=options
    )
    return predicted_scores(files, reader)


def test_scores_of_written_files_are_those_of_the_evaluation(
    synthetic, chain_ids, run_dir, tmp_path
):
    expected = evaluated_scores(run_dir)
    assert sorted(expected) == sorted(chain_ids)
    found = scores(synthetic, chain_ids, run_dir, tmp_path / "out")
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_a_validation_chain_is_predicted_and_compared(synthetic, chain_ids, run_dir, tmp_path):
    expected = evaluated_scores(run_dir)
    median = sorted(chain_ids, key=lambda name: (expected[name], name))[(len(chain_ids) - 1) // 2]
    out = tmp_path / "prediction"
    command = ["predict-validation", str(run_dir), "--data-dir", str(synthetic.shards)]
    assert benchmark([*command, "--out", str(out)]) == 0
    (entry,) = json.loads((out / "scores.json").read_text())["chains"].values()
    assert (entry["truth"], entry["truth_chain"]) == (synthetic.shards.name, median)
    assert entry["lddt_ca"] == pytest.approx(expected[median], abs=TOLERANCE)
    names = (f"{median}.cif", f"{median}.png", f"{median}_superposed.png", "report.html")
    assert all((out / name).stat().st_size > 0 for name in names)


@pytest.mark.parametrize("options", [("--seed", "1"), ("--recycling", "0"), ("--checkpoint", "12")])
def test_other_settings_give_other_scores(synthetic, chain_ids, run_dir, tmp_path, options):
    expected = {name: evaluated_scores(run_dir)[name] for name in chain_ids[1:3]}
    found = scores(synthetic, expected, run_dir, tmp_path / "out", *options)
    assert found != pytest.approx(expected, abs=2 * TOLERANCE)
