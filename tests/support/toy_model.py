"""A small model and a loss of two terms, with the interfaces of the real ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from openfold_opt.losses.alphafold_loss import LossTerms
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.optim.adam import ClipPer, OptimizerConfig
from openfold_opt.train.step import LossFunction, MicroBatch, StepConfig, TrainStep

WIDTH = 5
LEARNING_RATE = 1e-2


@dataclass(frozen=True, kw_only=True)
class ToyFeatures:
    """x: [batch, num_passes, WIDTH], or [batch, WIDTH] at a pass; y: [batch]."""

    x: Tensor
    y: Tensor

    @property
    def num_passes(self) -> int:
        return self.x.shape[1]

    def at_pass(self, pass_index: int) -> ToyFeatures:
        return replace(self, x=self.x[:, pass_index])


class ToyModel(nn.Module):
    """Two linear layers. Recycling iterations have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.outer = nn.Linear(WIDTH, 1)

    def forward(self, batch, plan, *, num_recycling_iterations, dropout=None):
        previous = torch.zeros_like(batch.x[:, 0])
        for pass_index in range(num_recycling_iterations + 1):
            with torch.set_grad_enabled(pass_index == num_recycling_iterations):
                previous = torch.tanh(self.inner(batch.x[:, pass_index] + previous))
        return self.outer(previous)[:, 0]


def toy_loss(outputs: Tensor, batch: ToyFeatures) -> LossTerms:
    """Return the terms "error" of weight 1 and "idle" of weight 0.

    A step must be applied even if "idle" is NaN.
    """
    error = (outputs - batch.y) ** 2 + 0.0 * batch.x.sum(-1)
    idle = torch.log(batch.x[:, 0])
    scaled = 2.0 * error
    return LossTerms(
        terms={"error": error, "idle": idle},
        weighted_total=error,
        scaled_total=scaled,
        loss=scaled.mean(),
    )


def toy_samples(step: int, num_samples: int, *, num_passes: int = 3) -> ToyFeatures:
    """Return the global batch of a step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.rand(num_samples, num_passes, WIDTH, generator=generator) + 0.1
    return ToyFeatures(x=x, y=torch.randn(num_samples, generator=generator))


def micro_batch(features: ToyFeatures, first: int, last: int) -> MicroBatch:
    """Return samples first .. last - 1 of a global batch."""
    return MicroBatch(
        features=ToyFeatures(x=features.x[first:last], y=features.y[first:last]),
        slots=torch.arange(first, last),
        sample_ids=tuple(f"sample {slot}" for slot in range(first, last)),
    )


def toy_step(
    *,
    seed: int = 0,
    accumulation: int = 1,
    clip_norm: float = 0.1,
    clip_per: ClipPer = "batch",
    loss: LossFunction = toy_loss,
    context: ParallelContext | None = None,
) -> TrainStep:
    """Return a TrainStep with a new toy model."""
    torch.manual_seed(seed)
    config = StepConfig(
        optimizer=OptimizerConfig(clip_norm=clip_norm, clip_per=clip_per),
        accumulation=accumulation,
        gradient_bucket_bytes=64,
    )
    return TrainStep(
        ToyModel(), loss=loss, plan=ExecutionPlan.reference(), config=config, context=context
    )
