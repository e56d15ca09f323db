"""Wire features of structures and templates: resolved atoms, and the residue before the crop."""

import numpy as np
import pytest

from openfold_opt.loader.raw_features import Templates
from openfold_opt.loader.transforms.encode_structure import encode_structure, encode_templates
from tests.support.raw_samples import make_raw


def unpacked(flags):
    return np.unpackbits(flags, axis=-1, bitorder="little")[..., :37].astype(bool)


def test_only_positions_of_resolved_atoms_are_encoded_in_order():
    raw, crop = make_raw(), slice(3, 14)
    features = encode_structure(raw, crop=crop)
    flags = unpacked(features["atom_flags"])
    np.testing.assert_array_equal(flags, raw.all_atom_mask[crop] > 0)
    assert len(features["atom_positions"]) == flags.sum() < flags.size
    np.testing.assert_array_equal(features["atom_positions"], raw.all_atom_positions[crop][flags])
    np.testing.assert_array_equal(features["aatype"], raw.aatype[crop])


@pytest.mark.parametrize(
    ("crop", "first"), [(slice(0, 6), None), (slice(1, 6), 0), (slice(9, 20), 8)]
)
def test_templates_include_the_residue_before_the_crop(crop, first):
    templates, chosen = make_raw().templates, np.array([2, 0])
    features = encode_templates(templates, chosen=chosen, crop=crop)
    flags = unpacked(features["template_atom_flags"])
    assert features["num_templates"] == 2
    np.testing.assert_array_equal(
        features["template_aatype"][:, 1:], templates.aatype[chosen, crop]
    )
    assert flags[:, 1:].all()
    if first is None:
        assert not flags[:, 0].any()
        assert not features["template_aatype"][:, 0].any()
    else:
        assert flags[:, 0].all()
        np.testing.assert_array_equal(
            features["template_aatype"][:, 0], templates.aatype[chosen, first]
        )
        np.testing.assert_array_equal(
            features["template_atom_positions"][:37], templates.all_atom_positions[2, first]
        )


def test_empty_choice_of_templates():
    features = encode_templates(
        make_raw().templates, chosen=np.zeros(0, np.int64), crop=slice(2, 8)
    )
    assert features["num_templates"] == 0
    assert features["template_aatype"].shape == (0, 7)
    assert features["template_atom_positions"].shape == (0, 3)


def test_missing_template_atoms_are_not_encoded():
    mask = np.zeros((1, 4, 37), np.float32)
    mask[0, 2, [1, 36]] = 1
    positions = np.arange(4 * 37 * 3, dtype=np.float32).reshape(1, 4, 37, 3)
    templates = Templates(
        aatype=np.full((1, 4), 21), all_atom_positions=positions, all_atom_mask=mask
    )
    features = encode_templates(templates, chosen=np.array([0]), crop=slice(0, 4))
    np.testing.assert_array_equal(features["template_atom_positions"], positions[0, 2, [1, 36]])
