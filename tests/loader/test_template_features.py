"""Template features: golden values, subsets, crops, and no templates."""

import numpy as np
import pytest

from openfold_opt.loader.transforms.template_features import make_template_features

MASK_OF = {
    "template_all_atom_positions": "template_all_atom_mask",
    "template_pseudo_beta": "template_pseudo_beta_mask",
    "template_torsion_angles_sin_cos": "template_torsion_angles_mask",
    "template_alt_torsion_angles_sin_cos": "template_torsion_angles_mask",
}


@pytest.mark.parametrize("chain", ["2hhb_A", "2q2k_A", "4zxb_D", "1igy_B", "1aki_A", "3o5r_A"])
def test_template_features_equal_golden_values(golden_transforms, chain):
    golden, raw = golden_transforms.features[chain], golden_transforms.raw(chain)
    chosen = np.arange(len(raw.templates.aatype))
    for name, array in make_template_features(
        raw.templates, chosen=chosen, crop=slice(0, raw.num_res)
    ).items():
        assert array.shape == golden[name].shape, name
        if name in MASK_OF:
            exists = golden[MASK_OF[name]].astype(bool)
            np.testing.assert_allclose(array[exists], golden[name][exists], atol=1e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(array, golden[name], err_msg=name)


@pytest.mark.parametrize("crop", [slice(0, 40), slice(11, 60)])
def test_chosen_templates_and_residues(golden_transforms, crop):
    raw = golden_transforms.raw("1aki_A")
    whole = make_template_features(raw.templates, chosen=np.arange(4), crop=slice(0, raw.num_res))
    chosen = np.array([3, 1])
    for name, array in make_template_features(raw.templates, chosen=chosen, crop=crop).items():
        expected = whole[name][chosen] if name == "template_mask" else whole[name][chosen, crop]
        np.testing.assert_allclose(array, expected, atol=1e-6, err_msg=name)


def test_features_without_templates_are_empty(golden_transforms):
    raw = golden_transforms.raw("2hhb_A")
    features = make_template_features(
        raw.templates, chosen=np.zeros(0, np.int64), crop=slice(3, 10)
    )
    assert {name: array.shape[0] for name, array in features.items()} == dict.fromkeys(features, 0)
    assert features["template_torsion_angles_sin_cos"].shape == (0, 7, 7, 2)
