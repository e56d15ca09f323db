"""Secondary structure from CA positions, the ribbon, and the direction of the view."""

from __future__ import annotations

import numpy as np
import pytest

from openfold_opt.predict.pictures.projection import best_view
from openfold_opt.predict.pictures.ribbon import HELIX_WIDTH, TUBE_RADIUS, backbone_rings
from openfold_opt.predict.pictures.secondary_structure import (
    COIL,
    HELIX,
    STRAND,
    assign_secondary_structure,
)
from tests.support.drawn_chains import hairpin, helix, strand


def test_secondary_structure():
    assert (assign_secondary_structure(helix(12)) == HELIX).all()
    assert (assign_secondary_structure(helix(4)) == COIL).all(), "too short"
    assert (assign_secondary_structure(strand(12)) == COIL).all(), "no partner"
    codes = assign_secondary_structure(hairpin(8))
    assert (
        (codes[:8] == STRAND).all()
        and (codes[-8:] == STRAND).all()
        and (codes[8:11] != HELIX).all()
    )


def test_secondary_structure_does_not_depend_on_the_place():
    moved = hairpin(8) + [1e4, -1e4, 1e4]
    assert np.array_equal(assign_secondary_structure(moved), assign_secondary_structure(hairpin(8)))


def test_rings_go_through_the_atoms_and_have_the_width_of_the_element():
    ca = helix(12)
    (rings,) = backbone_rings(ca, np.ones(12, bool), steps=4)
    distance = np.linalg.norm(ca[:, None] - rings.centers, axis=2).min(axis=1)
    assert distance.max() < 1e-9
    widths = np.linalg.norm(rings.wide, axis=1)[1:-1]
    assert widths == pytest.approx(HELIX_WIDTH)
    # The ribbon of a helix is wide along its axis, z.
    assert (np.abs(rings.wide[1:-1, 2]) > 0.8 * HELIX_WIDTH).all()
    assert np.array_equal(np.unique(rings.residue), np.arange(12))


def test_a_gap_separates_segments_and_an_isolated_residue_is_a_sphere():
    has_ca = np.ones(20, bool)
    has_ca[[5, 7]] = False
    segments = backbone_rings(helix(20), has_ca, steps=3)
    assert [set(rings.residue) for rings in segments] == [
        set(range(5)),
        {6},
        set(range(8, 20)),
    ]


def test_small_tubes_stay_visible():
    (rings,) = backbone_rings(strand(10), np.ones(10, bool), steps=2, min_radius=5.0)
    assert np.linalg.norm(rings.thin, axis=1)[1:-1] == pytest.approx(5.0)
    assert TUBE_RADIUS < 5.0


def test_view_is_a_rotation_along_the_principal_axes():
    random = np.random.default_rng(0)
    points = random.normal(size=(200, 3)) * [2.0, 30.0, 9.0] + 100.0
    rotation = best_view(points)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0), "no mirror image"
    spread = (points @ rotation.T).std(axis=0)
    assert spread[0] > 2 * spread[1] > 4 * spread[2]
    turned = (points - points.mean(axis=0)) @ rotation.T
    assert turned[0, 0] <= 0 and turned[0, 1] <= 0, "the first residue is at the lower left"
