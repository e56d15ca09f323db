"""The check of a run with phases: which checkpoints it compares, and what it reports."""

import json

import numpy as np
import pytest

from benchmark.presets import build_preset
from openfold_opt.train.checkpoint import checkpoint_store
from tests.train.confidence_of_run import (
    END,
    LAST_MIDDLE,
    LAST_START,
    MIDDLE,
    ChainConfidence,
    chosen_steps,
    correlation,
    report,
)

CONFIG = build_preset("demo_full")
STEPS = {MIDDLE: 200, LAST_START: 300, LAST_MIDDLE: 350, END: 400}


def write_checkpoints(run_dir, phase_starts):
    """Write the descriptions of checkpoints: step -> index of the next phase and its start."""
    for step, (index, start) in phase_starts.items():
        folder = run_dir / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        content = {
            "samples_seen": step,
            "lddt_ca": None,
            "facts": {"phase": {"index": index, "steps_before": start}},
        }
        (folder / checkpoint_store.DESCRIPTION).write_text(json.dumps(content))


def chains(lddt_ca, *, plddt=None, ptm=None, violation=1.0):
    plddt = 100 * lddt_ca if plddt is None else plddt
    ptm = lddt_ca if ptm is None else ptm
    return [
        ChainConfidence(lddt_ca=a, mean_plddt=b, tm_score=a, ptm=c, violation=violation)
        for a, b, c in zip(lddt_ca, plddt, ptm)
    ]


def test_it_compares_the_ends_of_phases_and_the_middle_of_the_last_one(tmp_path):
    starts = {100: (1, 100), 200: (2, 200), 300: (3, 300), 340: (3, 300), 380: (3, 300)}
    write_checkpoints(tmp_path, {**starts, 400: (3, 300)})
    assert chosen_steps(tmp_path, CONFIG) == {**STEPS, LAST_MIDDLE: 340}


@pytest.mark.parametrize("starts", [{}, {100: (0, 0)}, {300: (3, 300), 400: (3, 300)}])
def test_a_run_without_these_checkpoints_is_refused(tmp_path, starts):
    write_checkpoints(tmp_path, starts)
    with pytest.raises(SystemExit, match="expected a finished run with phases"):
        chosen_steps(tmp_path, CONFIG)


def scores(end, **changes):
    before = np.linspace(0.3, 0.7, 5)
    roles = dict.fromkeys((MIDDLE, LAST_START, LAST_MIDDLE), chains(before, violation=0.4))
    return {**roles, END: chains(end, **{"violation": 0.1, **changes})}


def test_correlated_scores_pass(capsys):
    assert report(scores(np.linspace(0.4, 0.8, 5)), STEPS) == []
    assert "violation loss x 0.250" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"plddt": np.full(5, 10.0)}, ["pLDDT with lDDT-Ca"]),
        ({"ptm": np.linspace(0.9, 0.1, 5)}, ["pTM with TM-score"]),
        ({"violation": 0.3}, ["violation loss"]),
        ({"end": np.linspace(0.2, 0.6, 5)}, ["lDDT-Ca"]),
    ],
)
def test_every_bar_is_checked(changes, failed):
    end = changes.pop("end", np.linspace(0.4, 0.8, 5))
    assert report(scores(end, **changes), STEPS) == failed


def test_a_constant_confidence_has_no_correlation():
    constant = chains(np.linspace(0.3, 0.7, 5), plddt=np.full(5, 50.0))
    assert np.isnan(correlation(constant, "mean_plddt", "lddt_ca"))
