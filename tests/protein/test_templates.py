"""Template features of a small data set.

tests/data_prep/convert/test_convert_golden.py compares the features of real templates.
"""

from __future__ import annotations

import numpy as np
import pytest

from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.residue_constants import restype_order_with_x
from openfold_opt.protein.templates import (
    center_atoms,
    featurize_templates,
    hits_for_date,
    latest_template_date,
)


@pytest.fixture
def reader(small_data_dir):
    return ShardReader(small_data_dir)


def test_latest_template_date_is_sixty_days_before():
    assert latest_template_date("2001-03-02") == "2001-01-01"
    assert latest_template_date("2030-01-01") == "2029-11-02"


def test_template_features(reader):
    features = featurize_templates(reader, "1abc_A", max_templates=4)
    assert features["names"] == ["2abc_A"]
    template = reader.structure("2abc_A")
    expected = [restype_order_with_x[letter] for letter in template.sequence[3:23]] + [21, 21]
    assert (
        features["template_aatype"].tolist() == [expected]
        and features["template_aatype"].dtype == np.int32
    )
    assert features["template_sum_probs"].tolist() == [[19.5]]
    centered = center_atoms(template.all_atom_positions, template.all_atom_mask)
    np.testing.assert_array_equal(features["template_all_atom_positions"][0, :20], centered[3:23])
    np.testing.assert_array_equal(
        features["template_all_atom_mask"][0, :20], template.all_atom_mask[3:23]
    )
    assert not features["template_all_atom_mask"][0, 20:].any()


@pytest.mark.parametrize(
    "options", [{"max_template_date": "1999-12-31"}, {"max_templates": 0}, {"order": []}]
)
def test_features_without_templates_are_empty(reader, options):
    features = featurize_templates(reader, "1abc_A", **{"max_templates": 4, **options})
    assert features["names"] == []
    assert features["template_aatype"].shape == (0, 22)
    assert features["template_all_atom_positions"].shape == (0, 22, 37, 3)
    assert features["template_all_atom_mask"].shape == (0, 22, 37)
    assert features["template_sum_probs"].shape == (0, 1)


def test_max_template_date_is_inclusive(reader):
    assert len(hits_for_date(reader, "1abc_A", max_template_date="2000-01-01")) == 1
    assert len(hits_for_date(reader, "1abc_A", max_template_date="1999-12-31")) == 0


def test_order_determines_the_selected_templates(reader, monkeypatch):
    (hit,) = reader.template_hits("1abc_A")
    others = [
        {"sum_probs": score, "failure": failure}
        for score, failure in [(9.0, ""), (8.0, "broken"), (7.0, "")]
    ]
    hits = tuple(type(hit)(**{**vars(hit), **other}) for other in others)
    monkeypatch.setattr(reader, "template_hits", lambda chain_id: hits)
    scores = [
        featurize_templates(reader, "1abc_A", max_templates=2, order=order)["template_sum_probs"][
            :, 0
        ].tolist()
        for order in (None, [2, 1, 0], [1], [2])
    ]
    assert scores == [[9.0, 7.0], [7.0, 9.0], [], [7.0]]


def test_centering_leaves_unresolved_atoms_at_zero():
    positions = np.zeros((2, 37, 3), dtype=np.float32)
    mask = np.zeros((2, 37), dtype=bool)
    assert not center_atoms(positions, mask).any()
    positions[0, 0], positions[1, 1], mask[0, 0], mask[1, 1] = 1.0, 3.0, True, True
    centered = center_atoms(positions, mask)
    assert centered[0, 0].tolist() == [-1.0] * 3 and centered[1, 1].tolist() == [1.0] * 3
    assert not centered[~mask].any() and positions[0, 0, 0] == 1.0
