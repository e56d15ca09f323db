"""Compare optimizer steps: from the initial weights, and resumed from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.parity.comparison import (
    BINNED_TERM_TOLERANCE,
    BINNED_TERMS,
    DISTANT_LOSS_TOLERANCE,
    DISTANT_TERM_TOLERANCE,
    DISTANT_UPDATE_TOLERANCE,
    STEP_TOLERANCE,
    Comparison,
    relative_error,
)
from benchmark.parity.golden_directory import GoldenDirectory, GoldenDirectoryError, GoldenStep
from data_prep.progress import tracked
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.weights import RESUMABLE_KEY, load_weights
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.optim.adam import OptimizerConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig, learning_rate
from openfold_opt.train.optim.weight_average import WeightAverageConfig
from openfold_opt.train.step import MicroBatch, StepConfig, TrainStep
from openfold_opt.train.step_result import StepMetrics

SCHEDULE = ScheduleConfig(warmup_steps=3)
"""Schedule of the stored trajectory: learning rate 1e-5 to 1e-3 in the warm-up."""
NUM_CLOSE_STEPS = 4
"""Number of steps after a stored state (initial weights or a checkpoint) in which rounding
differences stay small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredState:
    """The state of the golden run after one of its steps (resumable.pt)."""

    path: Path
    iteration: int
    """Number of the step after which the state was stored."""
    parameters: dict[str, Tensor]
    optimizer: dict[str, Any]
    """The state dict of torch.optim.Adam."""


def compare_steps(
    golden: GoldenDirectory,
    loss_config: LossConfig,
    plan: ExecutionPlan,
    context: ParallelContext,
) -> list[Comparison]:
    """Compare the steps of the trajectory, and their updates of parameters and running average.

    All steps run from the initial weights. With a resumable.pt, the steps after it also run from
    that state. The file has no running average, so the second part starts from the average of the
    first part at the same step, which is still close to the initial weights.
    """
    stored = _read_stored_state(golden) if golden.has("resumable.pt") else None
    train_step = _train_step(golden, loss_config, plan, context)
    average = torch.zeros_like(train_step.weight_average.average)
    comparisons, updates = [], []
    for record in tracked(golden.trajectory, what="steps of the trajectory", unit="step"):
        metrics = _run_step(train_step, golden, record)
        is_close = metrics.step <= NUM_CLOSE_STEPS
        comparisons += _compare_step("trajectory", metrics, record, is_close=is_close)
        if stored is not None and metrics.step == stored.iteration:
            average.copy_(train_step.weight_average.average)
            updates.append(_compare_stored_state(train_step, golden, stored, is_close=is_close))
    num_steps = len(golden.trajectory)
    updates += _compare_updates(
        "update",
        train_step,
        golden,
        start=golden.weights,
        is_close=num_steps <= NUM_CLOSE_STEPS,
        has_average=True,
    )
    comparisons += updates
    if stored is not None:
        _load_stored_state(train_step, stored, average)
        comparisons += _compare_resumed(train_step, golden, stored, has_average=True)
    return comparisons


def compare_resumed_steps(
    golden: GoldenDirectory,
    loss_config: LossConfig,
    plan: ExecutionPlan,
    context: ParallelContext,
) -> list[Comparison]:
    """Compare only the steps after resumable.pt, and their update of the parameters.

    The running average is not compared, because the file has none.

    Raises:
        GoldenDirectoryError: The file does not exist or is damaged.
    """
    stored = _read_stored_state(golden)
    train_step = _train_step(golden, loss_config, plan, context)
    _load_stored_state(train_step, stored, train_step.weight_average.average.clone())
    return _compare_resumed(train_step, golden, stored, has_average=False)


def _compare_resumed(
    train_step: TrainStep, golden: GoldenDirectory, stored: StoredState, *, has_average: bool
) -> list[Comparison]:
    """Compare the steps after the stored state, which train_step has loaded.

    has_average: whether it has loaded the running average, too.
    """
    records = [record for record in golden.trajectory if record.step > stored.iteration]
    comparisons = []
    for record in tracked(records, what="resumed steps", unit="step"):
        metrics = _run_step(train_step, golden, record)
        is_close = metrics.step <= stored.iteration + NUM_CLOSE_STEPS
        comparisons += _compare_step("resumed", metrics, record, is_close=is_close)
    return comparisons + _compare_updates(
        "resumed update",
        train_step,
        golden,
        start=stored.parameters,
        is_close=len(records) <= NUM_CLOSE_STEPS,
        has_average=has_average,
    )


def _read_stored_state(golden: GoldenDirectory) -> StoredState:
    path = golden.path / "resumable.pt"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        stored = StoredState(
            path=path,
            iteration=int(content["iteration"]),
            parameters=content[RESUMABLE_KEY],
            optimizer=content["optimizer_state_dict"],
        )
    except Exception as error:  # torch.load raises many types for damaged files.
        raise GoldenDirectoryError(f"{path} is not a resumable checkpoint: {error}") from error
    steps = [record.step for record in golden.trajectory]
    if stored.iteration not in steps:
        raise GoldenDirectoryError(
            f"{path} was stored after step {stored.iteration}, expected one of the steps of the "
            f"trajectory in results.json: {steps}"
        )
    return stored


def _train_step(
    golden: GoldenDirectory,
    loss_config: LossConfig,
    plan: ExecutionPlan,
    context: ParallelContext,
) -> TrainStep:
    """Return a TrainStep at the initial weights with the configured optimizer, without dropout."""
    model = AlphaFold(golden.model_config)
    load_weights(model, golden.weights, source=str(golden.path))
    config = golden.config or {}
    return TrainStep(
        model,
        loss=AlphaFoldLoss(loss_config),
        plan=plan,
        config=StepConfig(
            optimizer=OptimizerConfig(clip_norm=config.get("clip_grad_max_norm", 0.1)),
            weight_average=WeightAverageConfig(decay_rate=config.get("swa_decay_rate", 0.9)),
        ),
        context=context,
        dropout_seed=None,
    )


def _load_stored_state(train_step: TrainStep, stored: StoredState, average: Tensor) -> None:
    """Load the stored state. average: the running average after the same step."""
    try:
        load_weights(train_step.model, stored.parameters, source=str(stored.path))
        train_step.optimizer.load_state_dict(stored.optimizer)
    except Exception as error:  # Damaged content fails in many ways.
        raise GoldenDirectoryError(
            f"{stored.path} is not a resumable checkpoint of this model: {error}"
        ) from error
    train_step.weight_average.average.copy_(average)
    train_step.weight_average.num_updates.fill_(stored.iteration)


def _run_step(train_step: TrainStep, golden: GoldenDirectory, record: GoldenStep) -> StepMetrics:
    slots = torch.arange(golden.batch.batch_size)
    sample_ids = tuple(f"sample {slot}" for slot in slots.tolist())
    micro_batch = MicroBatch(features=golden.batch, slots=slots, sample_ids=sample_ids)
    return train_step.run(
        [micro_batch],
        step=record.step,
        learning_rate=learning_rate(SCHEDULE, record.step),
        num_recycling_iterations=record.num_recycling_iterations,
    ).read()


def _compare_step(
    section: str, metrics: StepMetrics, record: GoldenStep, *, is_close: bool
) -> list[Comparison]:
    """Compare the metrics of a step with its record."""
    ours, theirs = (
        {
            "loss": each.loss,
            "lr": each.learning_rate,
            "grad_norm": each.gradient_norm,
            **each.terms,
        }
        for each in (metrics, record)
    )
    return [
        Comparison(
            section=section,
            name=f"step {metrics.step} {name}",
            error=relative_error(value, theirs[name]) if metrics.is_applied else float("inf"),
            tolerance=_step_tolerance(name, is_close=is_close),
        )
        for name, value in ours.items()
    ]


def _step_tolerance(name: str, *, is_close: bool) -> float:
    if is_close:
        return BINNED_TERM_TOLERANCE if name in BINNED_TERMS else STEP_TOLERANCE
    if name == "lr":
        return STEP_TOLERANCE
    return DISTANT_LOSS_TOLERANCE if name == "loss" else DISTANT_TERM_TOLERANCE


def _compare_stored_state(
    train_step: TrainStep, golden: GoldenDirectory, stored: StoredState, *, is_close: bool
) -> Comparison:
    """Compare the update from the initial weights to the stored state."""
    parameters = dict(train_step.model.named_parameters())
    return Comparison(
        section="update",
        name=stored.path.name,
        error=_update_error(parameters, stored.parameters, start=golden.weights),
        tolerance=STEP_TOLERANCE if is_close else DISTANT_UPDATE_TOLERANCE,
    )


def _compare_updates(
    section: str,
    train_step: TrainStep,
    golden: GoldenDirectory,
    *,
    start: Mapping[str, Tensor],
    is_close: bool,
    has_average: bool,
) -> list[Comparison]:
    """Compare the updates from `start` to the parameters and their average after all steps."""
    ours = {"params_after.npz": dict(train_step.model.named_parameters())}
    if has_average:
        ours["swa_after.npz"] = train_step.weight_average.parameters()
    return [
        Comparison(
            section=section,
            name=name,
            error=_update_error(tensors, golden.arrays(name), start=start),
            tolerance=STEP_TOLERANCE if is_close else DISTANT_UPDATE_TOLERANCE,
        )
        for name, tensors in ours.items()
        if golden.has(name)
    ]


def _update_error(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, start: Mapping[str, Tensor]
) -> float:
    """Return ||(ours - start) - (theirs - start)|| / ||theirs - start|| over all parameters."""
    updates = (
        torch.cat(
            [(side[name].detach().double() - start[name].double()).flatten() for name in theirs]
        )
        for side in (ours, theirs)
    )
    return relative_error(*updates)
