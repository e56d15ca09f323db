"""Structure features of the target: golden values and crops."""

import numpy as np
import pytest

from openfold_opt.loader.transforms.structure_features import make_structure_features

MASK_OF = {
    "all_atom_positions": "all_atom_mask",
    "atom14_gt_positions": "atom14_gt_exists",
    "atom14_alt_gt_positions": "atom14_alt_gt_exists",
    "rigidgroups_gt_frames": "rigidgroups_gt_exists",
    "rigidgroups_alt_gt_frames": "rigidgroups_gt_exists",
    "backbone_rigid_tensor": "backbone_rigid_mask",
    "pseudo_beta": "pseudo_beta_mask",
    "chi_angles_sin_cos": "chi_mask",
}


def features_of(golden_transforms, chain, crop=None):
    raw = golden_transforms.raw(chain)
    crop = crop or slice(0, raw.num_res)
    return make_structure_features(raw.aatype, raw.all_atom_positions, raw.all_atom_mask, crop=crop)


@pytest.mark.parametrize("chain", ["2hhb_A", "2q2k_A", "4zxb_D", "1igy_B", "1aki_A", "3o5r_A"])
def test_structure_features_equal_golden_values(golden_transforms, chain):
    golden = golden_transforms.features[chain]
    for name, array in features_of(golden_transforms, chain).items():
        if name in MASK_OF:
            exists = golden[MASK_OF[name]].astype(bool)
            np.testing.assert_allclose(array[exists], golden[name][exists], atol=1e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(array, golden[name], err_msg=name)


def test_features_of_a_crop_equal_the_cropped_features(golden_transforms):
    whole = features_of(golden_transforms, "4zxb_D")
    for name, array in features_of(golden_transforms, "4zxb_D", slice(20, 77)).items():
        np.testing.assert_allclose(array, whole[name][20:77], atol=1e-6, err_msg=name)
