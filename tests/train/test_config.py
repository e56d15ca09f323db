"""Marks, hash and checks of the configuration."""

import dataclasses
import json
from typing import ClassVar

import pytest

from openfold_opt.loader.config import DataConfig
from openfold_opt.train.checkpoint import CheckpointConfig
from openfold_opt.train.config import RunConfig, config_as_dict, config_fields, config_hash
from openfold_opt.train.precision import check_precision
from openfold_opt.train.selection import DataSelectionConfig
from openfold_opt.train.weight_average import WeightAverageConfig


def test_every_field_is_marked_and_the_free_ones_are_those_of_the_rules():
    leaves = list(config_fields(RunConfig()))
    assert len({leaf.path for leaf in leaves}) == len(leaves) > 80
    assert {leaf.path for leaf in leaves if leaf.mark == "free"} == {
        "loader.window",
        "schedule.base_learning_rate",
        "schedule.warmup_init_learning_rate",
        "schedule.warmup_steps",
        "local_batch_size",
        "accumulation",
    }
    marks = {leaf.path: leaf.mark for leaf in leaves}
    assert marks["data.crop_size"] == marks["optimizer.clip_norm"] == marks["evaluation.every_steps"] == "mathematical"
    assert marks["kernels.self_attention"] == marks["checkpoint.keep_last"] == marks["precision"] == "implementation"


def test_defaults_are_the_benchmarks():
    config = RunConfig()
    assert (config.optimizer.beta_1, config.optimizer.beta_2, config.optimizer.epsilon) == (0.9, 0.999, 1e-6)
    assert config.optimizer.clip_norm == 0.1 and config.weight_average.decay_rate == 0.9
    assert (config.evaluation.every_steps, config.evaluation.target_lddt_ca) == (40, 0.8)
    assert config.schedule.base_learning_rate == 1e-3 and config.schedule.warmup_steps == 0
    assert config.selection.train_max_release_date == "2021-09-16"
    assert (config.selection.validation_min_date, config.selection.validation_max_date) == ("2021-09-17", "2021-12-11")


def test_hash_follows_what_is_computed_and_nothing_else():
    config = RunConfig()
    slower = dataclasses.replace(config, max_steps=7, checkpoint=CheckpointConfig(keep_last=9), precision="fp32")
    other = dataclasses.replace(config, weight_average=WeightAverageConfig(decay_rate=0.5))
    assert config_hash(slower) == config_hash(config) == config_hash(RunConfig())
    assert config_hash(other) != config_hash(config)


def test_a_config_becomes_json_and_a_field_without_a_mark_is_an_error():
    assert json.loads(json.dumps(config_as_dict(RunConfig())))["optimizer"]["epsilon"] == 1e-6

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Unmarked:
        closed_division: ClassVar[str] = "sometimes"
        x: int = 1

    with pytest.raises(ValueError, match="config field x is marked 'sometimes'"):
        list(config_fields(Unmarked()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_batch_size": 0}, "local_batch_size=0"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"device": "tpu"}, "unknown device 'tpu'; expected one of auto, cpu, cuda"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; expected one of fp32, tf32, bf16"),
    ],
)
def test_impossible_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**change)


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="expected one of cameo, release_dates, chain_ids"):
        DataSelectionConfig(validation_rule="best")
    with pytest.raises(ValueError, match="expected one of fp32, tf32, bf16"):
        check_precision("double")


def test_samples_of_different_lengths_make_no_batch():
    with pytest.raises(ValueError, match="local_batch_size=2 with data.pad_to_crop=False"):
        RunConfig(data=DataConfig(pad_to_crop=False), local_batch_size=2)
