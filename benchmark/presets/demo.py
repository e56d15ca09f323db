"""A small model that learns synthetic families from random weights, on two CPU cores or a GPU.

It is evaluated on families that it was not trained on (`data_prep synthesize`). Open division: the
model is small, and clamping, dropout and recycling are off, because they slow down a short run.
`./run_and_time.sh` starts two ranks on two CPU cores, each with half of every batch.
"""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_one_phase
from openfold_opt.losses.config import ViolationLossConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.phase_config import PhaseConfig


def build() -> RunConfig:
    """Return four phases with four chains a step; docs/lab_log.md explains the values."""
    config = demo_one_phase.build()
    # Without the side-chain term of FAPE, a step takes a fifth less time. The torsion loss trains
    # the side chains.
    loss = dataclasses.replace(
        config.loss,
        fape=dataclasses.replace(config.loss.fape, backbone_weight=1.0, sidechain_weight=0.0),
    )
    phases = (
        # Longer crops learn less in these steps at this learning rate, and cost more.
        PhaseConfig(
            name="short_crops",
            steps=300,
            data=dataclasses.replace(config.data, crop_size=16),
            schedule=ScheduleConfig(
                base_learning_rate=3e-3, warmup_init_learning_rate=1e-4, warmup_steps=100
            ),
        ),
        PhaseConfig(
            name="crops",
            steps=200,
            data=dataclasses.replace(config.data, crop_size=24),
            schedule=ScheduleConfig(base_learning_rate=3e-3),
        ),
        PhaseConfig(
            name="chains",
            steps=450,
            schedule=ScheduleConfig(base_learning_rate=2.5e-3),
        ),
        # Distances and angles between neighbors raise lDDT-Ca once the fold is known. Before that,
        # their loss delays the fold.
        PhaseConfig(
            name="violations",
            steps=2000,
            end_lddt_ca=config.evaluation.target_lddt_ca,
            loss=dataclasses.replace(loss, violation=ViolationLossConfig(weight=0.1)),
            schedule=ScheduleConfig(
                base_learning_rate=2e-3, decay_steps=(600, 1000), decay_factor=0.5
            ),
        ),
    )
    return dataclasses.replace(
        config,
        loss=loss,
        phases=phases,
        max_steps=sum(phase.steps for phase in phases),
        evaluation=dataclasses.replace(config.evaluation, every_steps=50),
        global_batch_size=4,
    )
