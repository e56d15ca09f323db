"""The table of model features agrees with batches of the benchmark and detects wrong input."""

import numpy as np
import pytest

from openfold_opt.protein.features import FEATURES, check_features

UNUSED_BY_THE_MODEL = {
    "is_distillation",
    "template_sum_probs",
    "rigidgroups_group_exists",
    "rigidgroups_group_is_ambiguous",
    "extra_msa_row_mask",
}
SIZES = {"batch": 2, "num_passes": 4, "N_res": 7, "N_clust": 3, "N_extra": 5, "N_templ": 2}


def make_features(*, batched: bool) -> dict[str, np.ndarray]:
    return {
        name: np.zeros(
            [SIZES.get(dim, dim) for dim in spec.leading_dims(batched=batched) + spec.shape],
            spec.dtype,
        )
        for name, spec in FEATURES.items()
    }


@pytest.mark.parametrize("batched", [False, True])
def test_sizes_of_symbolic_dims_are_returned(batched):
    sizes = check_features(make_features(batched=batched), batched=batched)
    assert sizes == {dim: size for dim, size in SIZES.items() if batched or dim != "batch"}


@pytest.mark.parametrize("golden", ["model_tiny", "model_quirks", "model_full"])
def test_benchmark_batches_match_the_table(shared, golden):
    with np.load(shared / "golden" / golden / "batch.npz") as batch:
        arrays = {name: batch[name] for name in batch.files}
    assert set(arrays) - set(FEATURES) == UNUSED_BY_THE_MODEL
    features = {}
    for name, spec in FEATURES.items():
        array = np.moveaxis(arrays[name], -1, 1)
        if not spec.per_pass:
            assert np.array_equal(array[:, 0], array[:, -1], equal_nan=True), (
                f"{name} differs between passes"
            )
            array = array[:, 0]
        features[name] = array
    assert check_features(features, batched=True)["num_passes"] == 4


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("aatype", np.zeros(7, np.int32), "feature aatype: found dtype int32, expected int64"),
        (
            "seq_mask",
            np.zeros(8, np.float32),
            r"feature seq_mask: found shape \[8\], expected \[N_res=7\]",
        ),
        (
            "msa_mask",
            np.zeros((3, 7), np.float32),
            r"feature msa_mask: found shape \[3, 7\].*3 dims, not 2",
        ),
        (
            "all_atom_mask",
            np.zeros((7, 36), np.float32),
            r"feature all_atom_mask: found shape \[7, 36\]",
        ),
    ],
)
def test_error_names_the_feature_with_a_wrong_dtype_or_shape(name, array, message):
    features = make_features(batched=False) | {name: array}
    with pytest.raises(ValueError, match=message):
        check_features(features, batched=False)


def test_error_names_missing_and_unknown_features():
    features = make_features(batched=False)
    features["aatypes"] = features.pop("aatype")
    with pytest.raises(ValueError, match=r"missing \['aatype'\], unknown \['aatypes'\]"):
        check_features(features, batched=False)


def test_torch_tensors_are_accepted():
    torch = pytest.importorskip("torch")
    features = {
        name: torch.from_numpy(array) for name, array in make_features(batched=True).items()
    }
    assert check_features(features, batched=True)["batch"] == 2
