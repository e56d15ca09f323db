"""The stages of a full training in minutes: two phases and fine-tuning, on two ranks.

`make demo-full`, or torchrun --nproc-per-node 2. The model is that of the demo with a TM-score
head. A short phase with short crops comes before the first one. The second phase doubles the global
batch and shards every sample over both ranks (DAP). The TM-score head is trained from then on.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_one_phase
from openfold_opt.loader.config import DataConfig
from openfold_opt.losses.config import (
    ExperimentallyResolvedLossConfig,
    LossConfig,
    PLDDTLossConfig,
    TMLossConfig,
    ViolationLossConfig,
)
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.phase_config import PhaseConfig

MAX_BIN_ALIGNED_ERROR_ANGSTROM = 12.0
"""31 in AlphaFold2. The scale d_0 of the TM-score is 0.8 to 1.6 A for these chains of 24 to 36
residues, and AlphaFold2's centers of the bins are one width, 0.5 A, above what the bins hold."""


def build() -> RunConfig:
    """Return four phases. docs/lab_log.md explains the values."""
    config = demo_one_phase.build()
    heads = dataclasses.replace(
        config.model.auxiliary_heads,
        has_tm_score=True,
        max_bin_aligned_error_angstrom=MAX_BIN_ALIGNED_ERROR_ANGSTROM,
    )
    phases = _phases_on_crops(config.data) + _phases_on_whole_chains(config.loss)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, auxiliary_heads=heads),
        phases=phases,
        max_steps=sum(phase.steps for phase in phases),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=100),
        # One chunk: as in demo_dap2.
        parallel=ParallelConfig(dap_chunks=1),
        local_batch_size=1,
    )


def _phases_on_crops(data: DataConfig) -> tuple[PhaseConfig, ...]:
    """Return the phases with the batch of the demo, one sample on each rank."""
    return (
        PhaseConfig(
            name="short_crops",
            steps=600,
            data=dataclasses.replace(data, crop_size=16),
            schedule=ScheduleConfig(
                base_learning_rate=3e-3, warmup_init_learning_rate=1e-4, warmup_steps=200
            ),
        ),
        PhaseConfig(
            name="first",
            steps=1800,
            end_lddt_ca=0.65,
            required_lddt_ca=0.60,
            data=dataclasses.replace(data, crop_size=24),
            schedule=ScheduleConfig(
                base_learning_rate=3e-3, decay_steps=(800, 1300), decay_factor=0.5
            ),
        ),
    )


def _phases_on_whole_chains(loss: LossConfig) -> tuple[PhaseConfig, ...]:
    """Return the phases with twice the batch, every sample sharded over both ranks."""
    # More weight on the confidences than in AlphaFold2, so that they are learned in few steps.
    loss = dataclasses.replace(
        loss,
        plddt=PLDDTLossConfig(weight=0.1),
        tm=TMLossConfig(weight=2.0, max_bin_angstrom=MAX_BIN_ALIGNED_ERROR_ANGSTROM),
    )
    second = PhaseConfig(
        name="second",
        steps=500,
        end_lddt_ca=0.75,
        required_lddt_ca=0.70,
        global_batch_size=4,
        local_batch_size=4,
        dap_size=2,
        loss=loss,
        schedule=ScheduleConfig(base_learning_rate=2e-3, decay_steps=(200, 350), decay_factor=0.5),
    )
    fine_tuning = dataclasses.replace(
        second,
        name="fine_tuning",
        steps=400,
        end_lddt_ca=None,
        required_lddt_ca=None,
        loss=_finetuning_loss(loss),
        schedule=ScheduleConfig(base_learning_rate=1e-3, decay_steps=(300, 350), decay_factor=0.5),
        evaluate_every_steps=50,
    )
    return second, fine_tuning


def _finetuning_loss(loss: LossConfig) -> LossConfig:
    """Return a loss with the terms of fine-tuning.

    With the weight of AlphaFold2, 1.0, the gradient of the violations is ten times as large as all
    others together, and the confidences correlate less with the true scores.
    """
    return dataclasses.replace(
        loss,
        plddt=PLDDTLossConfig(weight=0.5),
        violation=ViolationLossConfig(weight=0.2),
        experimentally_resolved=ExperimentallyResolvedLossConfig(weight=0.01),
    )
