"""The picture of a prediction over the true structure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from openfold_opt.predict.pictures import draw_superposition
from openfold_opt.predict.pictures.superposition import PLACES, TRUE_COLOR, rgb
from tests.support.drawn_chains import chain, helix, part, pixels_of, strand


def draw(tmp_path, predicted, truth, scores="TM-score 0.9"):
    path = tmp_path / "x.png"
    draw_superposition(path, predicted, truth, scores=scores)
    return pixels_of(path.read_bytes())


def count_gray(panel):
    """Count the gray pixels that are neither white nor the dark outline."""
    is_gray = panel.max(axis=2) - panel.min(axis=2) < 0.02
    return (is_gray & (np.abs(panel.mean(axis=2) - rgb(TRUE_COLOR).mean()) < 0.15)).sum()


def test_truth_is_gray_and_visible_where_it_differs(tmp_path):
    predicted = chain(strand(40))
    moved = strand(40)
    moved[20:, 1] += 8.0
    same = count_gray(part(draw(tmp_path, predicted, chain(strand(40))), PLACES["structure"]))
    other = part(draw(tmp_path, predicted, chain(moved)), PLACES["structure"])
    assert count_gray(other) > 10 * max(same, 20)


def test_distance_of_each_residue(tmp_path):
    truth = strand(40)
    truth[:, 2] += 3.0
    truth[10:20] = np.nan
    panel = part(draw(tmp_path, chain(strand(40)), chain(truth)), PLACES["distance"])
    is_line = panel.max(axis=2) < 0.4
    columns = is_line[:-5].sum(axis=0)  # The axis is at the lower end.
    width = len(columns)
    assert (columns[round(0.3 * width) : round(0.45 * width)] == 0).all(), "a gap without truth"
    rows = np.flatnonzero(is_line[:-5, round(0.7 * width)])
    # The panel ends at 1.08 times the largest distance.
    assert rows.mean() / len(panel) == pytest.approx(1 - 1 / 1.08, abs=0.03)


def test_a_prediction_without_plddt_is_blue_and_bytes_are_equal(tmp_path):
    predicted = dataclasses.replace(chain(helix(20)), plddt=None)
    truth = dataclasses.replace(chain(helix(20) + [9, 0, 0], name="$1abc_"), plddt=None)
    first = draw(tmp_path, predicted, truth, scores="$ \\")
    panel = part(first, PLACES["structure"])
    assert ((panel[..., 2] > 0.6) & (panel[..., 0] < 0.3)).sum() > 1000
    assert np.array_equal(first, draw(tmp_path, predicted, truth, scores="$ \\"))


def test_structures_that_do_not_match_are_refused(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(ValueError, match="has 20 residues, and the superposed structure"):
        draw_superposition(path, chain(helix(20)), chain(helix(19)))
    missing = chain(np.full((20, 3), np.nan))
    with pytest.raises(ValueError, match="no residue with two CA atoms"):
        draw_superposition(path, chain(helix(20)), missing)
    assert not path.exists()
