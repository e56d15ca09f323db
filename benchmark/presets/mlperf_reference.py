"""The closed division of MLPerf HPC OpenFold, with the source of every value.

Sources: [R] closed_openfold.yaml of mlperf-logging, ruleset hpc 3.0.0; [A] AlphaFold2 supplement
(section, table); [P] logs published for MLPerf HPC v3.0; [M] defaults of the MLCommons reference.
"free in [R]" means that a submission to the closed division may change the value.
Other fields keep the defaults of their classes, which are also those of the benchmark: the sizes of
the model ([A] 1.5 to 1.9; 93,229,082 parameters [R]) and the constants of the losses ([A] 1.9).
"""

from __future__ import annotations

from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import ModelConfig
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.dataset_split import DataSelectionConfig
from openfold_opt.train.evaluation.evaluator import EvaluationConfig
from openfold_opt.train.optim.adam import OptimizerConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.optim.weight_average import WeightAverageConfig

INIT_CHECKPOINT_SHA256 = "b518be4677048f2c0f94889c91e2da73655a73b825a8aa7f8b6f5e580d8ffbed"
"""[R] init_checkpoint_sha256sum."""


def build() -> RunConfig:
    """Return the preset: one sample per rank and micro-batch, global batch 128."""
    return RunConfig(
        model=ModelConfig(),
        loss=LossConfig.initial_training(),
        data=_data(),
        loader=LoaderConfig(
            window=0,  # 0: batches in order, as [M]. [R] also allows a window (docs/loader.md).
            num_workers=14,  # [M]
        ),
        optimizer=OptimizerConfig(
            beta_1=0.9,  # [R] opt_adam_beta_1
            beta_2=0.999,  # [R] opt_adam_beta_2
            epsilon=1e-6,  # [R] opt_adam_epsilon
            clip_norm=0.1,  # [R] opt_gradient_clip_norm
        ),
        schedule=ScheduleConfig(
            base_learning_rate=1e-3,  # [M], free in [R]
            warmup_init_learning_rate=1e-5,  # [M], free in [R]
            warmup_steps=0,  # [M], free in [R]
        ),
        weight_average=WeightAverageConfig(decay_rate=0.9),  # [R] swa_decay_rate
        evaluation=EvaluationConfig(
            every_steps=40,  # [R] val_every_iters
            target_lddt_ca=0.8,  # [R] target_avg_lddt_ca_value
        ),
        selection=_selection(),
        checkpoint=CheckpointConfig(),
        parallel=ParallelConfig(),
        local_batch_size=1,  # [M], free in [R]
        accumulation=1,  # [M], free in [R]
        global_batch_size=128,  # [P] 128 or 256, free in [R]
        max_steps=2000,  # [M] num_train_iters
        init_checkpoint_sha256=INIT_CHECKPOINT_SHA256,
        precision="tf32",  # [M]; in [P], some runs have tf32 and others bf16
        device="cuda",
    )


def _data() -> DataConfig:
    return DataConfig(
        crop_size=256,  # [R] train_sequence_crop_size
        max_msa_clusters=124,  # [R] max_msa_clusters
        max_extra_msa=1024,  # [R] max_extra_msa
        masked_msa_fraction=0.15,  # [A] 1.2.7
        masked_msa_uniform_probability=0.1,  # [A] 1.2.7
        masked_msa_profile_probability=0.1,  # [A] 1.2.7
        masked_msa_same_probability=0.1,  # [A] 1.2.7
        max_templates=4,  # [R] templates_enabled, max_templates
        shuffled_template_hits=20,  # [M] shuffle_top_k_prefiltered
        max_recycling_iterations=3,  # [R] num_recycling_iters
        clamped_fape_probability=0.9,  # [A] 1.11.5
    )


def _selection() -> DataSelectionConfig:
    return DataSelectionConfig(
        train_max_release_date="2021-09-16",  # [R] train_max_pdb_release_date
        validation_rule="cameo",  # [M] targets of CAMEO
        validation_min_date="2021-09-17",  # [R] val_min_cameo_submission_date
        validation_max_date="2021-12-11",  # [R] val_max_cameo_submission_date
        validation_max_length=700,  # [R] val_max_sequence_length
        expected_train_samples=594_595,  # [R] train_samples
        expected_eval_samples=180,  # [R] eval_samples
    )
