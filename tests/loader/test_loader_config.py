"""Configurations: defaults of the benchmark, and errors for invalid values."""

import dataclasses

import pytest

from openfold_opt.loader.config import DataConfig, LoaderConfig


def test_defaults_equal_the_values_of_the_benchmark():
    assert dataclasses.asdict(DataConfig()) == {
        "crop_size": 256,
        "pad_to_crop": True,
        "max_msa_clusters": 124,
        "max_extra_msa": 1024,
        "masked_msa_fraction": 0.15,
        "masked_msa_uniform_probability": 0.1,
        "masked_msa_profile_probability": 0.1,
        "masked_msa_same_probability": 0.1,
        "max_templates": 4,
        "shuffled_template_hits": 20,
        "max_recycling_iterations": 3,
        "clamped_fape_probability": 0.9,
        "distillation_max_msa_rows": 1000,
    }
    assert DataConfig().num_passes == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_size": 0}, "crop_size is 0"),
        ({"max_templates": -1}, "max_templates is -1"),
        ({"masked_msa_fraction": 1.5}, "masked_msa_fraction is 1.5"),
        ({"masked_msa_same_probability": 0.9}, "a sum of at most 1"),
    ],
)
def test_invalid_data_config_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": -1}, "window is -1"),
        ({"start_method": "thread"}, "'thread'"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"timeout_seconds": 0.0}, "timeout_seconds is 0.0"),
    ],
)
def test_invalid_loader_config_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        LoaderConfig(**change)
