"""Categories, hash and validation of the configuration."""

import dataclasses
import json
from typing import ClassVar

import pytest
import torch

from benchmark.presets import demo, demo_full
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.loader.config import DataConfig
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train import build_run
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig, config_as_dict, config_fields, config_hash
from openfold_opt.train.dataset_split import DataSelectionConfig
from openfold_opt.train.optim.weight_average import WeightAverageConfig
from openfold_opt.train.phases import phases_of
from openfold_opt.train.precision import check_precision

WITHOUT_MATHEMATICAL_MEANING = {
    "": "max_steps precision recompute compiled_parts cuda_graphs warm_up device log_every_steps "
    "torch_threads",
    "loss.": "report_zero_weight_violation",
    "data.": "pad_to_crop",
    "loader.": "num_workers prefetch_per_worker start_method timeout_seconds max_attempts prefetch "
    "prefetch_depth",
    "checkpoint.": "every_steps keep_last keep_best",
    "parallel.": "dap_size overlap dap_chunks dap_min_chunk_bytes num_evaluation_ranks "
    "evaluation_groups evaluation_queue evaluation_dap_min_length backend "
    "gradient_bucket_bytes timeout_seconds heartbeat_seconds",
    "kernels.": " ".join(item.name for item in dataclasses.fields(KernelConfig)),
}
"""Prefix -> fields that do not change the result, so that closed-division runs may differ in them.

A new field has to be added here explicitly.
"""


def test_every_field_has_a_category_and_only_these_may_differ_in_the_closed_division():
    leaves = list(config_fields(RunConfig()))
    assert len({leaf.path for leaf in leaves}) == len(leaves) > 80
    assert {leaf.path for leaf in leaves if leaf.category == "free"} == {
        "loader.window",
        "schedule.base_learning_rate",
        "schedule.warmup_init_learning_rate",
        "schedule.warmup_steps",
        "local_batch_size",
        "accumulation",
        "global_batch_size",
    }
    assert {leaf.path for leaf in leaves if leaf.category == "implementation"} == {
        f"{part}{name}"
        for part, names in WITHOUT_MATHEMATICAL_MEANING.items()
        for name in names.split()
    }


def test_defaults_are_those_of_the_benchmark():
    config = RunConfig()
    assert (config.optimizer.beta_1, config.optimizer.beta_2, config.optimizer.epsilon) == (
        0.9,
        0.999,
        1e-6,
    )
    assert config.optimizer.clip_norm == 0.1 and config.weight_average.decay_rate == 0.9
    assert (config.evaluation.every_steps, config.evaluation.target_lddt_ca) == (40, 0.8)
    assert config.schedule.base_learning_rate == 1e-3 and config.schedule.warmup_steps == 0
    assert config.selection.train_max_release_date == "2021-09-16"
    assert (config.selection.validation_min_date, config.selection.validation_max_date) == (
        "2021-09-17",
        "2021-12-11",
    )


def test_the_hash_depends_only_on_fields_that_change_the_result():
    config = RunConfig()
    slower = dataclasses.replace(
        config, max_steps=7, checkpoint=CheckpointConfig(keep_last=9), precision="fp32"
    )
    other = dataclasses.replace(config, weight_average=WeightAverageConfig(decay_rate=0.5))
    assert config_hash(slower) == config_hash(config) == config_hash(RunConfig())
    assert config_hash(other) != config_hash(config)


def test_a_config_is_json_and_a_field_without_a_valid_category_is_an_error():
    assert json.loads(json.dumps(config_as_dict(RunConfig())))["optimizer"]["epsilon"] == 1e-6

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Invalid:
        category: ClassVar[str] = "sometimes"
        x: int = 1

    with pytest.raises(ValueError, match="config field x has category 'sometimes'"):
        list(config_fields(Invalid()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_batch_size": 0}, "local_batch_size=0"),
        ({"torch_threads": 0}, "torch_threads=0"),
        (
            {"compiled_parts": ("heads", "evoformer")},
            "unknown compiled part 'evoformer'; expected any of structure_module, losses, "
            "embedders, heads",
        ),
        ({"compiled_parts": ("heads", "heads")}, "expected each part once"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"global_batch_size": 0}, "global_batch_size=0: expected a positive multiple"),
        (
            {"global_batch_size": 3, "local_batch_size": 2},
            "global_batch_size=3: expected a positive multiple of local_batch_size=2",
        ),
        ({"device": "tpu"}, "unknown device 'tpu'; expected one of auto, cpu, cuda"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; expected one of fp32, tf32, bf16"),
    ],
)
def test_invalid_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**change)


def test_errors_about_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match="expected one of cameo, release_dates, chain_ids"):
        DataSelectionConfig(validation_rule="best")
    with pytest.raises(ValueError, match="expected one of fp32, tf32, bf16"):
        check_precision("double")


def test_samples_of_different_lengths_cannot_form_a_batch():
    with pytest.raises(ValueError, match="local_batch_size=2 with data.pad_to_crop=False"):
        RunConfig(data=DataConfig(pad_to_crop=False), local_batch_size=2)


def test_auto_kernels_are_the_same_on_all_ranks(monkeypatch):
    config = dataclasses.replace(demo.build(), kernels=KernelConfig.all("auto"))
    context, cpu = ParallelContext.alone(), torch.device("cpu")
    warnings = []

    def agree(config):
        return build_run.agree_on_kernels(config, context, cpu, warn=warnings.append)

    monkeypatch.setattr(build_run, "cpu_unsupported_reason", lambda: None)
    assert agree(config).kernels == KernelConfig.all("cpu") and not warnings
    # A second rank has no compiler.
    monkeypatch.setattr(
        build_run, "gather_objects", lambda mine, axis: [mine, "there is no C++ compiler"]
    )
    assert agree(config).kernels == KernelConfig()
    assert warnings == [
        "all ranks use the reference kernels, which are slower: rank 1 cannot use the CPU kernels: "
        "there is no C++ compiler"
    ]
    explicit = dataclasses.replace(config, kernels=KernelConfig.all("cpu"))
    assert agree(explicit) is explicit


def test_bins_of_the_tm_loss_have_to_be_those_of_the_tm_score_head():
    config = demo_full.build()
    heads = dataclasses.replace(config.model.auxiliary_heads, max_bin_aligned_error_angstrom=31.0)
    with pytest.raises(ValueError, match=r"loss\.tm\.max_bin_angstrom=12\.0 .* the same value"):
        phases_of(
            dataclasses.replace(
                config, model=dataclasses.replace(config.model, auxiliary_heads=heads)
            )
        )
