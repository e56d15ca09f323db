"""The presets of the full training: values, splits over ranks, memory, and a step of each."""

import dataclasses
import json

import pytest

from benchmark.presets import build_preset
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.memory_plan import USABLE_SHARE
from openfold_opt.train.phases import phases_of
from tests.support.meta_step import run_meta_step, with_one_block_per_stack
from tests.train.preset_memory import CHIPS, PRESETS, RECORD, memory_facts

INITIAL = [name for name in PRESETS if name.startswith("initial")]
DISTINCT_STEPS = [
    ("initial_training_1056", "first"),
    ("initial_training_1056", "second"),
    ("initial_training_8gpu", "second"),
    ("finetuning_ptm", "finetuning"),
]
"""Phases with different kernels, DAP sizes or samples."""


def phase_of(preset, name):
    (phase,) = [phase for phase in phases_of(build_preset(preset)) if phase.name == name]
    return phase


@pytest.mark.parametrize("preset", PRESETS)
def test_the_step_limit_is_the_sum_of_the_phases(preset):
    config = build_preset(preset)
    assert config.max_steps == sum(phase.steps for phase in config.phases)
    for phase in phases_of(config):
        # The last step of a phase is evaluated, whose score its condition needs.
        assert phase.settings.steps % phase.config.evaluation.every_steps == 0
        assert phase.config.optimizer.clip_norm == 0.1
        assert phase.config.weight_average.decay_rate == 0.999


@pytest.mark.parametrize("preset", INITIAL)
def test_initial_training_has_two_phases(preset):
    config = build_preset(preset)
    first, second = phases_of(config)
    assert (first.settings.steps, first.config.global_batch_size) == (5_000, 128)
    assert (first.settings.required_lddt_ca, first.settings.end_lddt_ca) == (0.8, None)
    assert first.config.kernels.self_attention == "triton"
    assert (second.settings.steps, second.config.global_batch_size) == (55_000, 256)
    assert (second.settings.end_lddt_ca, second.first_sample) == (0.9, 640_000)
    reference = {
        name for name, kind in second.config.kernels.implementations.items() if kind == "reference"
    }
    assert reference == {"self_attention", "global_attention"}
    assert config.init_checkpoint_sha256 is None and not config.requires_init_checkpoint
    assert config.selection.expected_train_samples is None


def test_the_learning_rate_of_initial_training():
    """The schedule is that of the run, so the second phase continues it."""
    first, second = phases_of(build_preset("initial_training"))
    rate = first.learning_rate(0)
    assert [rate(step) for step in (1, 500, 1000, 5000)] == [1e-6, 5e-4, 1e-3, 1e-3]
    rate = second.learning_rate(5_000)
    assert [rate(step) for step in (5001, 50_000)] == [1e-3, 1e-3]
    assert rate(50_001) == rate(60_000) == pytest.approx(0.95e-3)


def test_the_learning_rate_of_fine_tuning():
    (phase,) = phases_of(build_preset("finetuning"))
    rate = phase.learning_rate(0)
    assert rate(1) == rate(8_000) == 5e-4
    assert rate(8_001) == rate(12_000) == pytest.approx(0.95 * 5e-4)


def test_samples_and_losses_of_fine_tuning():
    plain, ptm = (build_preset(name) for name in ("finetuning", "finetuning_ptm"))
    for config in (plain, ptm):
        data = config.data
        assert (data.crop_size, data.max_msa_clusters, data.max_extra_msa) == (384, 508, 5120)
        assert (config.loss.violation.weight, config.loss.experimentally_resolved.weight) == (
            1,
            0.01,
        )
        assert config.requires_init_checkpoint and config.evaluation.every_steps == 100
    assert (plain.loss.tm.weight, ptm.loss.tm.weight) == (0.0, 0.1)
    assert plain.model == build_preset("initial_training").model
    assert ptm.model.auxiliary_heads.has_tm_score


@pytest.mark.parametrize(
    ("preset", "phase", "num_ranks", "split"),
    [
        ("initial_training_1056", "first", 1056, (1024, 128, 1)),
        ("initial_training_1056", "second", 1056, (1024, 256, 1)),
        ("initial_training_2080", "first", 1056, (1024, 128, 1)),
        ("initial_training_2080", "second", 2080, (2048, 256, 1)),
        ("initial_training_2080", "second", 1056, (1024, 128, 2)),
        ("initial_training_64gpu", "first", 64, (64, 64, 2)),
        ("initial_training_64gpu", "second", 64, (64, 64, 4)),
        ("initial_training_8gpu", "first", 8, (8, 8, 16)),
        ("initial_training_8gpu", "second", 8, (8, 8, 32)),
        ("finetuning", "finetuning", 128, (128, 128, 1)),
        ("finetuning_ptm", "finetuning", 8, (8, 8, 16)),
    ],
)
def test_the_split_over_the_ranks(preset, phase, num_ranks, split):
    """Training ranks, data-parallel size and micro-batches of a step."""
    config = check_global_batch(phase_of(preset, phase).config, num_ranks)
    num_training = count_training_ranks(config.parallel, num_ranks)
    data_size = num_training // config.parallel.dap_size
    assert (num_training, data_size, config.accumulation) == split


def test_the_first_phase_is_refused_on_the_ranks_of_the_second():
    config = phase_of("initial_training_2080", "first").config
    with pytest.raises(ValueError, match="global_batch_size=128 is not a multiple of 256"):
        check_global_batch(config, 2080)


@pytest.mark.parametrize(("preset", "name"), DISTINCT_STEPS)
def test_a_step_at_full_width(preset, name):
    """One block per stack. `python -m tests.train.preset_memory` runs all blocks."""
    config = with_one_block_per_stack(phase_of(preset, name).config)
    tensors = run_meta_step(config, num_recycling_iterations=1, num_recomputed_blocks=1)
    assert {"violation", "tm"} <= set(tensors.term_names) or preset != "finetuning_ptm"
    assert tensors.local_terms.shape == (1, len(tensors.term_names) + 1)


def test_a_step_with_clipping_per_sample_at_full_width():
    config = with_one_block_per_stack(phase_of("initial_training_1056", "first").config)
    optimizer = dataclasses.replace(config.optimizer, clip_per="sample")
    config = dataclasses.replace(config, optimizer=optimizer)
    tensors = run_meta_step(config, num_recycling_iterations=0, num_recomputed_blocks=1)
    assert tensors.local_terms.shape == (1, len(tensors.term_names) + 1)


def test_every_phase_fits_into_its_gpu():
    """The record is of these presets, and its sums are below the memory of the GPU."""
    records = json.loads(RECORD.read_text())
    planned = [
        (preset, phase.name, memory_facts(phase.config))
        for preset in PRESETS
        for phase in phases_of(build_preset(preset))
    ]
    assert [(each["preset"], each["phase"], each["facts"]) for each in records] == planned, (
        "plan again: make preset-memory"
    )
    for each in records:
        fixed = each["state_bytes"] + each["graph_bytes"]
        for chip in CHIPS:
            found = each["chips"][chip]
            assert found["recomputed_blocks"] is not None, (each["preset"], chip)
            assert fixed + found["step_bytes"] / USABLE_SHARE <= found["memory_bytes"]
