"""TM-score and GDT-TS, compared with tmtools and with known values."""

import os
from pathlib import Path

import numpy as np
import pytest
from tmtools import tm_align

from openfold_opt.predict.comparison.chain_scores import score_chain
from openfold_opt.predict.comparison.structure_reader import read_structures
from openfold_opt.predict.comparison.superposition_search import (
    d0_angstrom,
    search_superpositions,
)
from tests.support.structures import (
    EXAMPLES,
    only_residues,
    perturbed,
    random_rotation,
    real_chains,
    write_pdb,
)

NUM_PAIRS = 50


def without_segments(rng: np.random.Generator, num_residues: int) -> np.ndarray:
    """Return which residues are resolved: up to one segment is missing in each half of a chain."""
    keep = np.ones(num_residues, bool)
    half = num_residues // 2
    for first in (5, half + 5):
        start = int(rng.integers(first, first + half - 15))
        keep[start : start + int(rng.integers(0, 8))] = False
    return keep


def test_tm_score_equals_that_of_tmtools(tmp_path):
    """Predictions with noise and domain motion; truths with gaps and other numbers."""
    shared = os.environ.get("OPENFOLD_SHARED")
    folder = Path(shared) / "data/real/pdb_mmcif" if shared else EXAMPLES
    chains = real_chains(folder, min_residues=40, max_residues=100)
    rng = np.random.default_rng(0)
    differences = []
    for number in range(NUM_PAIRS):
        whole = chains[number % len(chains)]
        keep = without_segments(rng, whole.num_residues)
        true_file = write_pdb(tmp_path / "true.pdb", only_residues(whole, keep), first_number=-5)
        predicted_file = write_pdb(tmp_path / "predicted.pdb", perturbed(whole, rng))
        (true,), (predicted,) = read_structures(true_file), read_structures(predicted_file)
        scores = score_chain(predicted, [true])
        aligned = "".join(np.where(keep, list(whole.sequence), "-"))
        expected = tm_align(
            predicted.ca_positions.astype(np.float64),
            true.ca_positions.astype(np.float64),
            predicted.sequence,
            true.sequence,
            [predicted.sequence, aligned],
        )
        differences.append(scores.tm_score - expected.tm_norm_chain2)
    assert len(differences) == NUM_PAIRS and max(map(abs, differences)) < 1e-3


def test_equal_structures_have_the_highest_scores():
    rng = np.random.default_rng(0)
    points = 10.0 * rng.normal(size=(60, 3))
    rotation, translation = random_rotation(rng), np.array([10.0, -20.0, 30.0])
    result = search_superpositions(points, points @ rotation + translation, num_true=60)
    assert result.tm_score == pytest.approx(1.0) and result.gdt_ts == 1.0
    np.testing.assert_allclose(result.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(result.translation, translation, atol=1e-9)


def test_half_of_the_chain_is_far_away():
    points = 5.0 * np.random.default_rng(0).normal(size=(80, 3))
    shifted = points.copy()
    shifted[40:] += 1000.0
    result = search_superpositions(points, shifted, num_true=80)
    assert result.gdt_ts == 0.5
    assert result.tm_score == pytest.approx(0.5, abs=1e-4)
    half = search_superpositions(points, shifted, num_true=160)
    assert half.gdt_ts == 0.25


def test_a_mirror_image_is_not_superimposed():
    points = 10.0 * np.random.default_rng(0).normal(size=(50, 3))
    assert search_superpositions(points, -points, num_true=50).tm_score < 0.3


def test_thresholds_of_gdt_have_their_own_superpositions():
    """A quarter of the residues is off by 3 angstrom; shifted by 1, all are within 2 angstrom."""
    points = np.zeros((40, 3))
    points[:, 0] = 3.8 * np.arange(40)
    points[:, 1] = 5.0 * (np.arange(40) % 2)
    moved = points.copy()
    moved[::4, 2] += 3.0
    result = search_superpositions(moved, points, num_true=40)
    assert result.gdt_ts == pytest.approx((0.75 + 1.0 + 1.0 + 1.0) / 4)


@pytest.mark.parametrize(("num_residues", "d0"), [(10, 0.5), (20, 0.5), (115, 3.9556)])
def test_distance_scale(num_residues, d0):
    assert d0_angstrom(num_residues) == pytest.approx(d0, abs=1e-4)


def test_two_pairs_are_refused():
    with pytest.raises(ValueError, match="found 2 pairs of CA atoms, expected at least 3"):
        search_superpositions(np.zeros((2, 3)), np.zeros((2, 3)), num_true=2)
