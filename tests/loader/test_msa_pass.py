"""MSA features of a pass: golden values for given rows and masking, and cropping."""

import numpy as np
import pytest

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.reference.msa_pass import make_msa_pass, msa_features_of_choice
from openfold_opt.loader.transforms.msa_draws import RowChoice
from openfold_opt.loader.transforms.msa_features import make_target_feat


def golden_pass(golden_transforms, crop, max_extra_msa=1000):
    golden = golden_transforms.features["2hhb_A"]
    rows = RowChoice(
        clustered=golden["cluster/in_rows_clustered"], extra=golden["cluster/in_rows_extra"]
    )
    features = msa_features_of_choice(
        golden_transforms.raw("2hhb_A"),
        rows=rows,
        masked_msa=golden["cluster/in_masked_msa"].astype(np.uint8),
        crop=crop,
        max_extra_msa=max_extra_msa,
    )
    return golden, rows, features


def test_msa_features_equal_golden_values(golden_transforms):
    golden, rows, features = golden_pass(golden_transforms, slice(0, 141))
    for name in ("msa_feat", "extra_has_deletion", "extra_deletion_value"):
        np.testing.assert_allclose(
            features[name], golden[f"cluster/{name}"], atol=1e-5, err_msg=name
        )
    assert features["extra_deletion_value"].any()
    assert np.array_equal(features["true_msa"], golden["msa"][rows.clustered])
    assert np.array_equal(features["extra_msa"], golden["msa"][rows.extra])
    np.testing.assert_array_equal(make_target_feat(golden["aatype"]), golden["cluster/target_feat"])


def test_cropping_follows_clustering(golden_transforms):
    _, _, whole = golden_pass(golden_transforms, slice(0, 141))
    _, _, cropped = golden_pass(golden_transforms, slice(30, 71), max_extra_msa=17)
    for name, array in cropped.items():
        if name == "msa_row_mask":
            continue
        rows = slice(17) if name.startswith("extra") else slice(None)
        assert np.array_equal(array, whole[name][rows, 30:71]), name


@pytest.mark.parametrize("chain", ["3o5r_A", "2q2k_A"])
def test_shallow_alignments_have_no_extra_rows(golden_transforms, chain):
    raw = golden_transforms.raw(chain)
    features = make_msa_pass(
        raw,
        crop=slice(0, raw.num_res),
        config=DataConfig(),
        rows_rng=np.random.default_rng(0),
        mask_rng=np.random.default_rng(0),
    )
    assert features["msa_feat"].shape == (len(raw.msa), raw.num_res, 49)
    assert features["extra_msa"].shape == (0, raw.num_res)
    # Without extra rows, the profile of a cluster is its masked center.
    np.testing.assert_allclose(
        features["msa_feat"][..., 25:48], features["msa_feat"][..., :23], atol=1e-5
    )
