"""The demo in one phase, with whole chains and the same rate from the start, on any ranks.

It takes more than twice as long as `demo`. The demos of DAP, of evaluation ranks and of four ranks
change it. Open division: the model is small, and clamping, dropout and recycling are off, because
they slow down a short run.
"""

from __future__ import annotations

from benchmark.presets._small_model import backbone_first_loss, small_model
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.dataset_split import DataSelectionConfig
from openfold_opt.train.evaluation.evaluator import EvaluationConfig
from openfold_opt.train.optim.adam import OptimizerConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.optim.weight_average import WeightAverageConfig


def build() -> RunConfig:
    """Return 2,800 to 4,200 steps of two chains; docs/lab_log.md explains the values."""
    return RunConfig(
        model=small_model(),
        loss=backbone_first_loss(),
        data=DataConfig(
            crop_size=36,
            max_msa_clusters=4,
            max_extra_msa=4,
            max_templates=1,
            max_recycling_iterations=0,
            clamped_fape_probability=0.0,
        ),
        # Features are decoded in a thread, during the backward pass.
        loader=LoaderConfig(num_workers=1, prefetch_per_worker=8, prefetch="pinned"),
        optimizer=OptimizerConfig(beta_2=0.99, clip_norm=1.0),
        schedule=ScheduleConfig(
            base_learning_rate=2e-3,
            warmup_init_learning_rate=1e-4,
            warmup_steps=50,
            decay_steps=(3400, 4400),
            decay_factor=0.5,
        ),
        weight_average=WeightAverageConfig(decay_rate=0.97),
        evaluation=EvaluationConfig(every_steps=100, target_lddt_ca=0.8),
        selection=DataSelectionConfig(
            validation_rule="release_dates",
            validation_min_date="2021-11-20",
            validation_max_date="2021-12-11",
        ),
        checkpoint=CheckpointConfig(every_steps=200),
        local_batch_size=2,
        global_batch_size=2,
        max_steps=6000,
        use_dropout=False,
        precision="fp32",
        recompute=False,
        device="auto",
        log_every_steps=50,
        torch_threads=1,
    )
