"""Fixtures: a small model configuration and random batches."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from openfold_opt.geometry.atoms import make_atom14_masks
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.protein.features import FEATURES
from tests.support.tiny_model import tiny_model

SIZES = {"batch": 2, "num_passes": 3, "N_res": 8, "N_clust": 4, "N_extra": 6, "N_templ": 2}


@pytest.fixture
def small_config() -> ModelConfig:
    """Return the configuration of tiny_model."""
    return tiny_model()


@pytest.fixture
def sizes() -> dict[str, int]:
    """Return the sizes of random_features. A test module may replace them."""
    return SIZES


@pytest.fixture
def random_features(sizes) -> dict[str, torch.Tensor]:
    """Return random features; no element is masked."""
    generator = torch.Generator().manual_seed(0)
    features = {}
    for name, spec in FEATURES.items():
        shape = tuple(sizes.get(dim, dim) for dim in spec.leading_dims(batched=True) + spec.shape)
        if spec.dtype.kind == "i":
            features[name] = torch.randint(0, 14, shape, generator=generator)
        elif spec.unit == "0 or 1":
            features[name] = torch.ones(shape)
        else:
            features[name] = torch.randn(shape, generator=generator)
    features["residue_index"] = torch.arange(sizes["N_res"]).repeat(sizes["batch"], 1)
    features.update(make_atom14_masks(features["aatype"]))
    return features


@pytest.fixture
def random_batch(random_features) -> FeatureBatch:
    """Return the random features as a batch."""
    return FeatureBatch.from_features(random_features)


@pytest.fixture
def without_dropout():
    """Return a function that sets all dropout rates of a configuration to zero."""

    def set_rates_to_zero(config: ModelConfig) -> ModelConfig:
        stacks = {
            name: dataclasses.replace(
                getattr(config, name), msa_dropout_rate=0.0, pair_dropout_rate=0.0
            )
            for name in ("evoformer_stack", "extra_msa_stack")
        }
        return dataclasses.replace(
            config,
            template_pair_stack=dataclasses.replace(config.template_pair_stack, dropout_rate=0.0),
            structure_module=dataclasses.replace(config.structure_module, dropout_rate=0.0),
            **stacks,
        )

    return set_rates_to_zero
