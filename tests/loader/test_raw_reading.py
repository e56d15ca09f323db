"""Raw features read from converted shards: golden values, templates and errors."""

import dataclasses

import numpy as np
import pytest

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.raw_reading import (
    encode_sequence,
    read_evaluation_features,
    read_training_features,
    template_hit_order,
)
from openfold_opt.loader.sample import make_training_sample
from openfold_opt.protein.features import check_features
from openfold_opt.protein.reader import ShardReader
from tests.support.raw_samples import decoded

NUM_GOLDEN_ROWS = 300


def check_chain(reader, golden_transforms, templates, chain):
    golden = golden_transforms.features[chain]
    raw = read_evaluation_features(reader, chain, config=DataConfig())
    rows = np.arange(min(len(raw.msa), NUM_GOLDEN_ROWS))
    np.testing.assert_array_equal(raw.aatype, golden["aatype"])
    np.testing.assert_array_equal(raw.all_atom_positions, golden["all_atom_positions"])
    np.testing.assert_array_equal(raw.all_atom_mask, golden["all_atom_mask"])
    np.testing.assert_array_equal(raw.classes(rows), golden["msa"])
    np.testing.assert_array_equal(
        raw.deletions.dense(rows, slice(0, raw.num_res)), golden["deletion_matrix"]
    )
    np.testing.assert_array_equal(np.float32(raw.resolution), golden["resolution"])
    if len(raw.msa) <= NUM_GOLDEN_ROWS:
        np.testing.assert_allclose(raw.profile, golden["hhblits_profile"], atol=1e-6)
    prefix = f"{chain}/own_date/template_all_atom_"
    np.testing.assert_allclose(
        raw.templates.all_atom_positions, templates[f"{prefix}positions"], atol=1e-3
    )
    np.testing.assert_array_equal(raw.templates.all_atom_mask, templates[f"{prefix}mask"])


@pytest.mark.parametrize("chain", ["2hhb_A", "2q2k_A", "4zxb_D", "1igy_B"])
def test_real_chains_equal_golden_values(shared, real_dir, golden_transforms, chain):
    with np.load(shared / "golden" / "data" / "templates.npz") as templates:
        check_chain(ShardReader(real_dir), golden_transforms, templates, chain)


@pytest.mark.parametrize("chain", ["1aki_A", "3o5r_A"])
def test_chains_with_quirks_equal_golden_values(shared, quirks_dir, golden_transforms, chain):
    with np.load(shared / "golden" / "data_quirks" / "templates.npz") as templates:
        check_chain(ShardReader(quirks_dir), golden_transforms, templates, chain)


def test_profile_includes_all_rows_of_a_deep_alignment(real_dir):
    raw = read_evaluation_features(ShardReader(real_dir), "3en2_A", config=DataConfig())
    assert len(raw.msa) > 30_000
    classes = raw.classes(np.arange(len(raw.msa)))
    counted = np.stack([np.bincount(column, minlength=22) for column in classes.T]) / len(raw.msa)
    np.testing.assert_allclose(raw.profile, counted, atol=1e-6)


def test_only_training_shuffles_templates(quirks_dir):
    reader = ShardReader(quirks_dir)
    best = read_evaluation_features(reader, "1aki_A", config=DataConfig()).templates.aatype
    orders = {
        read_training_features(
            reader, "1aki_A", seed=seed, config=DataConfig()
        ).templates.aatype.tobytes()
        for seed in range(30)
    }
    assert len(best) == 3
    assert len(orders) == 6, "all orders of three templates occur"
    assert best.tobytes() in orders


def test_templates_can_be_disabled(quirks_dir):
    reader = ShardReader(quirks_dir)
    raw = read_training_features(reader, "1aki_A", seed=1, config=DataConfig(max_templates=0))
    assert raw.templates.aatype.shape == (0, raw.num_res)


def test_error_for_an_invalid_token_names_the_chain(quirks_dir, monkeypatch):
    reader = ShardReader(quirks_dir)
    record = reader.alignment("3o5r_A")
    broken = dataclasses.replace(record, msa=np.full_like(record.msa, 22))
    monkeypatch.setattr(reader, "alignment", lambda chain_id: broken)
    with pytest.raises(ValueError, match="3o5r_A: the alignment has a token 22, expected 0 to 21"):
        read_evaluation_features(reader, "3o5r_A", config=DataConfig())


def test_letters_without_a_class_become_unknown():
    assert encode_sequence("ARXZ-").tolist() == [0, 1, 20, 20, 20]


def test_full_size_sample_of_the_deepest_alignment(real_dir):
    sample = decoded(
        make_training_sample(ShardReader(real_dir), "3en2_A", seed=5, config=DataConfig())
    )
    sizes = check_features(sample, batched=False)
    assert (sizes["N_res"], sizes["N_clust"], sizes["N_extra"]) == (256, 124, 1024)
    assert sample["extra_msa_mask"].sum() == 4 * 1024 * 101
    profile = sample["msa_feat"][:, :, :101, 25:48]
    np.testing.assert_allclose(profile.sum(axis=-1), 1, atol=1e-4)
    assert not np.isnan(sample["msa_feat"]).any()


@pytest.mark.parametrize("num_hits", [0, 1, 19, 20, 21, 50])
def test_only_the_best_hits_are_shuffled(num_hits):
    order = template_hit_order(num_hits, num_shuffled=20, rng=np.random.default_rng(1))
    assert sorted(order) == list(range(num_hits))
    assert order[20:].tolist() == list(range(20, num_hits))


def test_each_of_the_best_hits_is_first_equally_often():
    firsts = [
        template_hit_order(30, num_shuffled=20, rng=np.random.default_rng(seed))[0]
        for seed in range(4000)
    ]
    np.testing.assert_allclose(
        np.bincount(firsts, minlength=30)[:20] / 4000, 0.05, atol=4 * np.sqrt(0.05 * 0.95 / 4000)
    )
