"""Synthetic features have the right shapes, depend on the seed, and are finite."""

import torch

from openfold_opt.loader.config import DataConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.train.synthetic_features import synthetic_batch

DATA = DataConfig(crop_size=9, max_msa_clusters=3, max_extra_msa=4, max_templates=2)


def test_shapes_are_those_of_training():
    batch = FeatureBatch.from_features(synthetic_batch(DATA, batch_size=2, num_passes=3))
    assert (batch.batch_size, batch.num_passes) == (2, 3)
    assert batch.msa_feat.shape == (2, 3, 3, 9, 49) and batch.template_aatype.shape == (2, 2, 9)


def test_a_seed_is_reproducible_and_samples_differ():
    first, second = (synthetic_batch(DATA, batch_size=2, num_passes=1, seed=5) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["aatype"][0], first["aatype"][1])


def test_all_features_are_finite():
    assert all(
        torch.isfinite(value.float()).all()
        for value in synthetic_batch(DATA, batch_size=1, num_passes=1).values()
    )
