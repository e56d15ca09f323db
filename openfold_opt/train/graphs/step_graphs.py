"""The whole training step, forward passes to weight average, as one graph for each number of recycling passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.graphs.recorder import Recorder, Recording
from openfold_opt.train.schedule import learning_rate
from openfold_opt.train.step import MicroBatch, StepNumbers, StepResult, StepTensors, TrainStep


class StepGraphs:
    """Runs steps as TrainStep does, by replaying what was recorded on memory that stays where it is.

    Samples, step number and learning rate are copied in before a replay. Parameters, moments, gradients and figures live outside the
    graphs' pool, so numbers of passes may follow each other in any order. A step whose samples have other shapes than the recorded
    ones is carried out by TrainStep itself, and counted in num_eager_steps.
    """

    def __init__(self, train_step: TrainStep, recorder: Recorder, *, micro_batches: list[MicroBatch]) -> None:
        """micro_batches: as many as a step takes, of the shapes to record, on the device; they become the graphs' own memory."""
        self._train_step = train_step
        self._recorder = recorder
        self._inputs = micro_batches
        device = train_step.buffer.values.device
        seed = train_step.dropout_seed
        self._numbers = StepNumbers(
            step=torch.ones((), dtype=torch.int64, device=device),
            learning_rate=torch.zeros((), dtype=torch.float64, device=device),
            dropout_seed=None if seed is None else torch.tensor(seed, dtype=torch.int64, device=device),
        )
        self._recordings: dict[int, Recording] = {}
        self._figures: StepTensors | None = None
        self.num_eager_steps = 0
        """Steps so far that fitted no graph."""

    def rehearse(self, num_recycling_passes: int) -> None:
        """Make a step without a graph. It changes weights: whoever calls this puts them back.

        All rehearsals come before the first recording, which takes memory that eager work cannot use.
        """
        self._recorder.rehearse(lambda: self._compute(num_recycling_passes))

    def record(self, num_recycling_passes: int) -> None:
        """Record the step."""
        self._recordings[num_recycling_passes] = self._recorder.record(lambda: self._compute(num_recycling_passes))

    def release(self) -> None:
        """Give the graphs up; further steps are eager."""
        for recording in self._recordings.values():
            recording.reset()
        self._recordings.clear()

    def run(self, micro_batches: Iterable[MicroBatch], *, step: int, num_recycling_passes: int) -> StepResult:
        """As TrainStep.run."""
        batches = list(micro_batches)
        recording = self._recordings.get(num_recycling_passes)
        if recording is None or not self._fit(batches, num_recycling_passes):
            self.num_eager_steps += 1
            return self._train_step.run(batches, step=step, num_recycling_passes=num_recycling_passes)
        for batch, inputs in zip(batches, self._inputs):
            _fill(inputs, batch, num_passes=num_recycling_passes + 1)
        self._numbers.step.fill_(step)
        self._numbers.learning_rate.fill_(learning_rate(self._train_step.config.schedule, step))
        recording.replay()
        # the next replay overwrites the figures; those of the samples are looked at only if something is not finite
        figures = dataclasses.replace(self._figures, local_terms=self._figures.local_terms.clone())
        sample_ids = tuple(sample_id for batch in batches for sample_id in batch.sample_ids)
        return self._train_step.result(figures, step=step, num_recycling_passes=num_recycling_passes, sample_ids=sample_ids)

    def _compute(self, num_recycling_passes: int) -> None:
        found = self._train_step.compute(self._inputs, self._numbers, num_recycling_passes=num_recycling_passes)
        if self._figures is None:
            # made by the first rehearsal, outside of any pool
            self._figures = dataclasses.replace(
                found, packed=torch.empty_like(found.packed), local_terms=torch.empty_like(found.local_terms)
            )
        self._figures.packed.copy_(found.packed)
        self._figures.local_terms.copy_(found.local_terms)

    def _fit(self, batches: list[MicroBatch], num_recycling_passes: int) -> bool:
        return len(batches) == len(self._inputs) and all(
            _same_layout(_used(inputs, num_recycling_passes + 1), _used(batch, num_recycling_passes + 1))
            for batch, inputs in zip(batches, self._inputs)
        )


def _used(batch: MicroBatch, num_passes: int) -> list[Tensor]:
    """The tensors of a batch that a step with so many slices of the per-pass features reads."""
    features: FeatureBatch = batch.features
    return [
        getattr(features, name)[:, :num_passes] if spec.per_pass else getattr(features, name) for name, spec in FEATURES.items()
    ] + [batch.slots]


def _same_layout(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all((a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device) for a, b in zip(ours, theirs))


def _fill(inputs: MicroBatch, batch: MicroBatch, *, num_passes: int) -> None:
    for target, source in zip(_used(inputs, num_passes), _used(batch, num_passes)):
        target.copy_(source, non_blocking=True)
