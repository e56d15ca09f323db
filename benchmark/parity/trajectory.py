"""Comparison of optimiser steps: from the start, and continued from a resumable checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmark.parity.comparison import TRAJECTORY_TOLERANCE, UPDATE_TOLERANCE, Comparison, relative_error
from benchmark.parity.golden_directory import GoldenDirectory, GoldenDirectoryError
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.weights import RESUMABLE_KEY, load_weights
from openfold_opt.train.optimizer import OptimizerConfig
from openfold_opt.train.schedule import ScheduleConfig
from openfold_opt.train.step import MicroBatch, StepConfig, StepFigures, TrainStep
from openfold_opt.train.weight_average import WeightAverageConfig

WARMUP_STEPS = 3
"""Of the stored trajectory: learning rate 1e-5 to 1e-3."""


def compare_trajectory(golden: GoldenDirectory, loss_config: LossConfig) -> list[Comparison]:
    """All stored steps, then the parameters and their running average."""
    train_step = _train_step(golden, loss_config)
    comparisons = _run_steps("trajectory", train_step, golden, golden.results["trajectory"])
    found = {"params_after.npz": dict(train_step.model.named_parameters()), "swa_after.npz": train_step.weight_average.parameters()}
    for name, tensors in found.items():
        if golden.has(name):
            comparisons.append(_compare_update(name, tensors, golden))
    return comparisons


def compare_resumed(golden: GoldenDirectory, loss_config: LossConfig) -> list[Comparison]:
    """The steps after those that resumable.pt has behind it."""
    path = golden.path / "resumable.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        iteration = int(content["iteration"])
        train_step = _train_step(golden, loss_config)
        load_weights(train_step.model, content[RESUMABLE_KEY], source=str(path))
        train_step.optimizer.load_state_dict(content["optimizer_state_dict"])
    except Exception as error:  # torch.load raises many kinds for garbled files
        raise GoldenDirectoryError(f"{path} is not a resumable checkpoint of this model: {error}") from error
    comparisons = _run_steps("resumed", train_step, golden, golden.results["trajectory"][iteration:])
    if golden.has("params_after.npz"):
        comparisons.append(
            _compare_update("params_after.npz", dict(train_step.model.named_parameters()), golden, section="resumed")
        )
    return comparisons


def _train_step(golden: GoldenDirectory, loss_config: LossConfig) -> TrainStep:
    """A step on the stored weights, without dropout, with the optimiser that the configuration says."""
    model = AlphaFold(golden.model_config)
    load_weights(model, golden.weights, source=str(golden.path))
    config = golden.config or {}
    return TrainStep(
        model,
        loss=AlphaFoldLoss(loss_config),
        plan=ExecutionPlan.plain(),
        config=StepConfig(
            optimizer=OptimizerConfig(clip_norm=config.get("clip_grad_max_norm", 0.1)),
            schedule=ScheduleConfig(warmup_steps=WARMUP_STEPS),
            weight_average=WeightAverageConfig(decay_rate=config.get("swa_decay_rate", 0.9)),
        ),
        dropout_seed=None,
    )


def _run_steps(
    section: str, train_step: TrainStep, golden: GoldenDirectory, expected: Sequence[Mapping[str, Any]]
) -> list[Comparison]:
    slots = torch.arange(golden.batch.batch_size)
    micro_batch = MicroBatch(
        features=golden.batch, slots=slots, sample_ids=tuple(f"sample {slot}" for slot in slots.tolist())
    )
    comparisons = []
    for record in expected:
        figures = train_step.run(
            [micro_batch], step=record["iteration"], num_recycling_passes=record["num_recycling_iters"]
        ).read()
        comparisons += _compare_step(section, figures, record)
    return comparisons


def _compare_step(section: str, figures: StepFigures, record: Mapping[str, Any]) -> list[Comparison]:
    ours = {"loss": figures.loss, "grad_norm": figures.gradient_norm, "lr": figures.learning_rate}
    theirs = {name: record[name] for name in ours}
    for name, value in record["losses"].items():
        if name in figures.terms:
            ours[name], theirs[name] = figures.terms[name], value
    return [
        Comparison(
            section=section,
            name=f"step {figures.step} {name}",
            error=relative_error(ours[name], theirs[name]) if figures.is_applied else float("inf"),
            tolerance=TRAJECTORY_TOLERANCE,
        )
        for name in ours
    ]


def _compare_update(
    name: str, tensors: Mapping[str, Tensor], golden: GoldenDirectory, *, section: str = "update"
) -> Comparison:
    """||(p - p0) - (golden - p0)|| / ||golden - p0|| over all parameters together."""
    expected = golden.arrays(name)
    ours, theirs = (
        torch.cat([(side[key].detach().double() - golden.weights[key].double()).flatten() for key in expected])
        for side in (tensors, expected)
    )
    return Comparison(section=section, name=name, error=relative_error(ours, theirs), tolerance=UPDATE_TOLERANCE)
