"""demo_full has the stages of a full training, and each phase fits two ranks."""

from benchmark.presets import build_preset
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.phases import phases_of

PHASES = phases_of(build_preset("demo_full"))
FINE_TUNING = PHASES[-1]


def test_batch_crop_and_dap_size_grow():
    configs = [phase.config for phase in PHASES]
    assert [config.global_batch_size for config in configs] == [2, 2, 4, 4]
    assert [config.parallel.dap_size for config in configs] == [1, 1, 2, 2]
    crops = [config.data.crop_size for config in configs]
    assert crops[0] < crops[1] < crops[2] == crops[3]


def test_every_phase_fits_two_ranks_without_accumulation():
    assert [check_global_batch(phase.config, 2).accumulation for phase in PHASES] == [1, 1, 1, 1]


def test_phases_require_the_scores_of_the_documents():
    assert [phase.settings.required_lddt_ca for phase in PHASES] == [None, 0.60, 0.70, None]
    assert FINE_TUNING.settings.end_lddt_ca is None, "it ends after its steps"


def test_the_last_phases_train_the_tm_score_head_and_fine_tuning_penalizes_violations():
    assert all(phase.config.model.auxiliary_heads.has_tm_score for phase in PHASES)
    losses = [phase.config.loss for phase in PHASES]
    assert [loss.tm.weight > 0.0 for loss in losses] == [False, False, True, True]
    assert [loss.violation.weight > 0.0 for loss in losses] == [False, False, False, True]
    assert [loss.experimentally_resolved.weight for loss in losses] == [0.0, 0.0, 0.0, 0.01]


def test_checkpoints_of_all_phases_are_kept():
    config = build_preset("demo_full")
    written = config.max_steps // config.checkpoint.every_steps + len(PHASES)
    assert config.checkpoint.keep_last >= written
