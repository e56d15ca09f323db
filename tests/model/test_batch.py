"""FeatureBatch: fields, sizes, selection of a pass and validation."""

import dataclasses

import pytest
import torch

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.features import FEATURES


def test_fields_are_the_features_in_order():
    assert [field.name for field in dataclasses.fields(FeatureBatch)] == list(FEATURES)


def test_batch_size_and_number_of_passes(random_batch):
    assert (random_batch.batch_size, random_batch.num_passes) == (2, 3)


def test_at_pass_selects_per_pass_features_and_keeps_shared_ones(random_batch):
    at_pass = random_batch.at_pass(1)
    assert at_pass.aatype is random_batch.aatype
    assert torch.equal(at_pass.msa_feat, random_batch.msa_feat[:, 1])
    assert at_pass.extra_msa.shape == (2, 6, 8)


@pytest.mark.parametrize("index", [3, -1])
def test_a_missing_pass_is_an_error(random_batch, index):
    with pytest.raises(ValueError, match=f"pass {index} requested, but the batch has 3 slices"):
        random_batch.at_pass(index)


def test_a_batch_at_a_pass_has_no_number_of_passes(random_batch):
    with pytest.raises(ValueError, match="already cut to one pass"):
        _ = random_batch.at_pass(0).num_passes


def test_a_wrong_shape_is_named(random_features):
    random_features["msa_mask"] = random_features["msa_mask"][:, :, :, :-1]
    with pytest.raises(ValueError, match="msa_mask"):
        FeatureBatch.from_features(random_features)


def test_to_moves_every_field(random_batch):
    moved = random_batch.to("meta")
    assert all(
        getattr(moved, field.name).device.type == "meta" for field in dataclasses.fields(moved)
    )
