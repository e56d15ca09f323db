"""Comparison of optimiser steps: from the start, and continued from a resumable checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmark.parity.comparison import (
    SPREAD_UPDATE_TOLERANCE,
    TRAJECTORY_NORM_TOLERANCE,
    TRAJECTORY_TERM_TOLERANCE,
    TRAJECTORY_TOLERANCE,
    UPDATE_TOLERANCE,
    Comparison,
    relative_error,
)
from benchmark.parity.golden_directory import GoldenDirectory, GoldenDirectoryError
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.weights import RESUMABLE_KEY, load_weights
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.optimizer import OptimizerConfig
from openfold_opt.train.schedule import ScheduleConfig
from openfold_opt.train.step import MicroBatch, StepConfig, StepFigures, TrainStep
from openfold_opt.train.weight_average import WeightAverageConfig

WARMUP_STEPS = 3
"""Of the stored trajectory: learning rate 1e-5 to 1e-3."""


def compare_trajectory(
    golden: GoldenDirectory, loss_config: LossConfig, plan: ExecutionPlan, context: ParallelContext
) -> list[Comparison]:
    """All stored steps, then the parameters and their running average."""
    train_step = _train_step(golden, loss_config, plan, context)
    comparisons = []
    for record in golden.results["trajectory"]:
        comparisons += _compare_step("trajectory", _run_step(train_step, golden, record), record)
    found = {
        "params_after.npz": dict(train_step.model.named_parameters()),
        "swa_after.npz": train_step.weight_average.parameters(),
    }
    tolerance = UPDATE_TOLERANCE if context.dap.size == 1 else SPREAD_UPDATE_TOLERANCE
    for name, tensors in found.items():
        if golden.has(name):
            comparisons.append(_compare_update(name, tensors, golden, tolerance=tolerance))
    return comparisons


def compare_resumed(
    golden: GoldenDirectory, loss_config: LossConfig, plan: ExecutionPlan, context: ParallelContext
) -> list[Comparison]:
    """The steps after those that resumable.pt has behind it."""
    path = golden.path / "resumable.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        iteration = int(content["iteration"])
        train_step = _train_step(golden, loss_config, plan, context)
        load_weights(train_step.model, content[RESUMABLE_KEY], source=str(path))
        train_step.optimizer.load_state_dict(content["optimizer_state_dict"])
    except Exception as error:  # torch.load raises many kinds for garbled files
        raise GoldenDirectoryError(f"{path} is not a resumable checkpoint of this model: {error}") from error
    comparisons = []
    for record in golden.results["trajectory"][iteration:]:
        comparisons += _compare_step("resumed", _run_step(train_step, golden, record), record)
    if golden.has("params_after.npz"):
        comparisons.append(
            _compare_update("params_after.npz", dict(train_step.model.named_parameters()), golden, section="resumed")
        )
    return comparisons


def _train_step(golden: GoldenDirectory, loss_config: LossConfig, plan: ExecutionPlan, context: ParallelContext) -> TrainStep:
    """A step on the stored weights, without dropout, with the optimiser that the configuration says."""
    model = AlphaFold(golden.model_config)
    load_weights(model, golden.weights, source=str(golden.path))
    config = golden.config or {}
    return TrainStep(
        model,
        loss=AlphaFoldLoss(loss_config),
        plan=plan,
        config=StepConfig(
            optimizer=OptimizerConfig(clip_norm=config.get("clip_grad_max_norm", 0.1)),
            schedule=ScheduleConfig(warmup_steps=WARMUP_STEPS),
            weight_average=WeightAverageConfig(decay_rate=config.get("swa_decay_rate", 0.9)),
        ),
        context=context,
        dropout_seed=None,
    )


def _run_step(train_step: TrainStep, golden: GoldenDirectory, record: Mapping[str, Any]) -> StepFigures:
    slots = torch.arange(golden.batch.batch_size)
    sample_ids = tuple(f"sample {slot}" for slot in slots.tolist())
    micro_batch = MicroBatch(features=golden.batch, slots=slots, sample_ids=sample_ids)
    num_passes = record["num_recycling_iters"]
    return train_step.run([micro_batch], step=record["iteration"], num_recycling_passes=num_passes).read()


def _compare_step(section: str, figures: StepFigures, record: Mapping[str, Any]) -> list[Comparison]:
    """Everything that the record and the figures of a step have in common."""
    ours = {"loss": figures.loss, "lr": figures.learning_rate, "grad_norm": figures.gradient_norm} | figures.terms
    theirs = {name: record[name] for name in ("loss", "lr", "grad_norm")} | record["losses"]
    return [
        Comparison(
            section=section,
            name=f"step {figures.step} {name}",
            error=relative_error(ours[name], theirs[name]) if figures.is_applied else float("inf"),
            tolerance=_step_tolerance(section, name),
        )
        for name in ours
    ]


def _step_tolerance(section: str, name: str) -> float:
    if section == "resumed" or name in ("loss", "lr"):
        return TRAJECTORY_TOLERANCE
    return TRAJECTORY_NORM_TOLERANCE if name == "grad_norm" else TRAJECTORY_TERM_TOLERANCE


def _compare_update(
    name: str,
    tensors: Mapping[str, Tensor],
    golden: GoldenDirectory,
    *,
    section: str = "update",
    tolerance: float = UPDATE_TOLERANCE,
) -> Comparison:
    """||(p - p0) - (golden - p0)|| / ||golden - p0|| over all parameters together."""
    expected = golden.arrays(name)
    ours, theirs = (
        torch.cat([(side[key].detach().double() - golden.weights[key].double()).flatten() for key in expected])
        for side in (tensors, expected)
    )
    return Comparison(section=section, name=name, error=relative_error(ours, theirs), tolerance=tolerance)
