"""Translate the fields of a RunConfig to keys of the MLPerf log."""

from __future__ import annotations

from openfold_opt.train.config import RunConfig

LogValue = str | float | bool


def hyperparameter_values(config: RunConfig) -> dict[str, LogValue]:
    """Return the hyperparameters in the order in which the MLCommons reference logs them.

    They are the keys between `precision` and `init_checkpoint_sha256sum`.
    """
    return _sample_values(config) | _loss_values(config) | _optimizer_values(config)


def _sample_values(config: RunConfig) -> dict[str, LogValue]:
    data = config.data
    return {
        "train_sequence_crop_size": data.crop_size,
        "num_recycling_iters": data.max_recycling_iterations,
        "max_msa_clusters": data.max_msa_clusters,
        "max_extra_msa": data.max_extra_msa,
        "templates_enabled": data.max_templates > 0,
        "max_templates": data.max_templates,
    }


def _loss_values(config: RunConfig) -> dict[str, LogValue]:
    loss = config.loss
    return {
        "fape_loss_weight": loss.fape.weight,
        "fape_loss_backbone_weight": loss.fape.backbone_weight,
        "fape_loss_sidechain_weight": loss.fape.sidechain_weight,
        "supervised_chi_loss_weight": loss.supervised_chi.weight,
        "distogram_loss_weight": loss.distogram.weight,
        "masked_msa_loss_weight": loss.masked_msa.weight,
        "plddt_loss_weight": loss.plddt.weight,
    }


def _optimizer_values(config: RunConfig) -> dict[str, LogValue]:
    """Return optimizer values. Gradients are always clipped; there is no weight decay."""
    optimizer, schedule = config.optimizer, config.schedule
    return {
        "opt_name": "Adam",
        "opt_base_learning_rate": schedule.base_learning_rate,
        "opt_adam_beta_1": optimizer.beta_1,
        "opt_adam_beta_2": optimizer.beta_2,
        "opt_adam_epsilon": optimizer.epsilon,
        "opt_weight_decay": 0.0,
        "opt_amsgrad": False,
        "opt_gradient_clipping": True,
        "opt_gradient_clip_norm": optimizer.clip_norm,
        "opt_learning_rate_warmup_init": schedule.warmup_init_learning_rate,
        "opt_learning_rate_warmup_steps": schedule.warmup_steps,
    }
