"""Samples: purity, shapes, and statistics of the random draws."""

import numpy as np
import pytest

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.sample import draw_crop, draw_template_subset
from openfold_opt.protein.features import FEATURES, check_features
from tests.support.raw_samples import evaluation_sample, make_raw, training_sample

SMALL = DataConfig(crop_size=12, max_msa_clusters=6, max_extra_msa=9, max_templates=4)


def assert_equal(one, other):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize(
    "size",
    [
        {},
        {"num_res": 5},
        {"num_rows": 1},
        {"num_rows": 4},
        {"num_templates": 0},
        {"num_templates": 1},
    ],
)
def test_training_samples_have_fixed_shapes(size):
    raw = make_raw(**size)
    sample = training_sample(raw, seed=1, config=SMALL)
    sizes = check_features(sample, batched=False)
    assert sizes == {"N_res": 12, "N_clust": 6, "N_extra": 9, "N_templ": 4, "num_passes": 4}
    length = min(12, raw.num_res)
    assert sample["seq_length"] == length == sample["seq_mask"].sum()
    assert sample["msa_row_mask"].sum(axis=1).tolist() == [min(6, len(raw.msa))] * 4
    num_extra = min(max(len(raw.msa) - 6, 0), 9)
    assert sample["extra_msa_mask"].sum(axis=(1, 2)).tolist() == [num_extra * length] * 4


def test_evaluation_samples_have_their_true_length():
    raw = make_raw()
    sample = evaluation_sample(raw, seed=1, config=SMALL)
    assert check_features(sample, batched=False)["N_res"] == 20
    assert sample["residue_index"].tolist() == list(range(20))
    assert sample["template_mask"].tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(sample["template_aatype"], raw.templates.aatype)
    assert sample["bert_mask"].any(), "the MSA is masked in evaluation too"


def test_a_sample_is_a_pure_function_of_its_seed():
    raw = make_raw()
    first = training_sample(raw, seed=2**62 + 1, config=SMALL)
    assert_equal(first, training_sample(raw, seed=2**62 + 1, config=SMALL))
    other = training_sample(raw, seed=2**62 + 2, config=SMALL)
    assert not np.array_equal(first["msa_feat"], other["msa_feat"])


def test_passes_differ_in_rows_and_masking_and_share_the_crop():
    raw = make_raw()
    sample = training_sample(raw, seed=3, config=SMALL)
    for name in ("true_msa", "bert_mask", "extra_msa"):
        assert len({array.tobytes() for array in sample[name]}) == 4, name
    start = sample["residue_index"][0]
    assert (sample["true_msa"][:, 0] == raw.msa[0, start : start + 12]).all(), (
        "the query comes first in every pass"
    )


def test_padding_is_zero():
    raw = make_raw(num_res=5, num_rows=3, num_templates=2)
    sample = training_sample(raw, seed=4, config=SMALL)
    for name, array in sample.items():
        spec = FEATURES[name]
        if "N_res" in spec.shape:
            dim = spec.shape.index("N_res") + spec.per_pass
            assert not np.take(array, range(5, 12), axis=dim).any(), name


def test_statistics_of_1000_samples():
    raw, num_samples = make_raw(), 1000
    starts, templates, clamped, chosen, replaced = np.zeros(9), np.zeros(5), 0, 0, np.zeros(23)
    for seed in range(num_samples):
        sample = training_sample(raw, seed=seed, config=SMALL)
        starts[sample["residue_index"][0]] += 1
        templates[int(sample["template_mask"].sum())] += 1
        clamped += sample["use_clamped_fape"]
        chosen += sample["bert_mask"].sum()
        is_masked = sample["bert_mask"].astype(bool)
        replaced += np.bincount(
            sample["msa_feat"][..., :23].argmax(axis=-1)[is_masked], minlength=23
        )
    tolerance = 4.5 / np.sqrt(num_samples)
    np.testing.assert_allclose(starts / num_samples, 1 / 9, atol=tolerance * np.sqrt(1 / 9 * 8 / 9))
    np.testing.assert_allclose(templates / num_samples, 0.2, atol=tolerance * np.sqrt(0.2 * 0.8))
    assert clamped / num_samples == pytest.approx(0.9, abs=tolerance * np.sqrt(0.9 * 0.1))
    positions = num_samples * 4 * 6 * 12
    assert chosen / positions == pytest.approx(0.15, abs=0.003)
    shares = replaced / chosen
    assert shares[22] == pytest.approx(0.7, abs=0.01)
    assert shares[20] == pytest.approx(0.1, abs=0.01), "drawn from the profile"
    assert shares[10:20].sum() == pytest.approx(0.05, abs=0.01), (
        "uniform draws of classes that the alignment does not have"
    )
    assert shares[:10].sum() == pytest.approx(0.15, abs=0.01), "unchanged, or uniform"


def test_unpadded_sample_equals_the_padded_sample_without_padding():
    raw = make_raw(num_res=20)
    padded = training_sample(
        raw, seed=5, config=DataConfig(crop_size=32, max_msa_clusters=6, max_extra_msa=9)
    )
    config = DataConfig(crop_size=32, max_msa_clusters=6, max_extra_msa=9, pad_to_crop=False)
    unpadded = training_sample(raw, seed=5, config=config)
    assert unpadded["aatype"].shape == (20,)
    for name, value in unpadded.items():
        window = tuple(slice(0, size) for size in value.shape)
        np.testing.assert_array_equal(padded[name][window], value, err_msg=name)


@pytest.mark.parametrize("num_res", [1, 9, 10])
def test_short_chain_is_not_cropped(num_res):
    assert draw_crop(num_res, crop_size=10, rng=np.random.default_rng(0)) == slice(0, num_res)


def test_crop_starts_are_uniform():
    starts = [
        draw_crop(14, crop_size=10, rng=np.random.default_rng(seed)).start for seed in range(5000)
    ]
    counts = np.bincount(starts)
    assert len(counts) == 5
    np.testing.assert_allclose(counts / 5000, 0.2, atol=4 * np.sqrt(0.2 * 0.8 / 5000))


@pytest.mark.parametrize("num_templates", [0, 1, 4])
def test_template_subset_sizes_are_uniform(num_templates):
    sizes, members = np.zeros(num_templates + 1), np.zeros(num_templates)
    for seed in range(2000):
        chosen = draw_template_subset(num_templates, rng=np.random.default_rng(seed))
        assert len(set(chosen)) == len(chosen)
        sizes[len(chosen)] += 1
        members[chosen] += 1
    np.testing.assert_allclose(sizes / 2000, 1 / (num_templates + 1), atol=0.04)
    np.testing.assert_allclose(members / 2000, 0.5, atol=0.05)
