"""CUDA graphs of the training step, one per number of recycling iterations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.graphs.recorder import Capture, Recorder
from openfold_opt.train.step import MicroBatch, StepNumbers, StepTensors, TrainStep, local_rows
from openfold_opt.train.step_result import StepResult


class StepGraphs:
    """Runs the same steps as TrainStep by replaying graphs on static memory.

    A graph holds the forward and backward pass of one micro-batch. A step replays it once per
    micro-batch, and gradients accumulate in the parameter buffer. With several micro-batches, the
    update (reduction over ranks, clipping, Adam, average) is a separate graph. With one, the
    update is part of the micro-batch's graph: the reduction then starts during the backward pass,
    and a capture must contain both the start and the wait of a collective.

    Parameters, moments, gradients and metrics are allocated outside the memory pool of the graphs,
    so graphs can run in any order. A micro-batch with other shapes than the captured ones runs
    without a graph, and its step is counted in num_eager_steps.
    """

    def __init__(
        self, train_step: TrainStep, recorder: Recorder, *, micro_batch: MicroBatch
    ) -> None:
        """micro_batch: on the device, with the shapes to capture; it becomes the static input."""
        self._train_step = train_step
        self._recorder = recorder
        self._input = micro_batch
        self._has_one_graph = train_step.config.accumulation == 1
        device = train_step.buffer.values.device
        seed = train_step.dropout_seed
        # The graphs read these from device memory, so a replay uses the values of its step.
        self._step = torch.ones((), dtype=torch.int64, device=device)
        self._learning_rate = torch.zeros((), dtype=torch.float64, device=device)
        self._numbers = StepNumbers(
            step=self._step,
            learning_rate=self._learning_rate,
            dropout_seed=None
            if seed is None
            else torch.tensor(seed, dtype=torch.int64, device=device),
        )
        self._captures: dict[int, Capture] = {}
        self._update_capture: Capture | None = None
        self._term_names: tuple[str, ...] = ()
        self._rows: Tensor | None = None
        """[batch, terms + 1] float32: output of a replay, as in StepResult.local_terms."""
        self._packed: Tensor | None = None
        """Output of a replay, as in StepTensors.packed."""
        self.num_eager_steps = 0
        """Number of steps with a micro-batch that no graph fits."""

    def warm_up_run(self, num_recycling_iterations: int) -> None:
        """Run a micro-batch and the update without a graph. The caller restores the weights.

        Call this for every number of recycling iterations before the first capture, because
        captured graphs do not share their memory with eager work.
        """
        self._train_step.zero_gradients()
        self._recorder.warm_up_run(lambda: self._run_graph_work(num_recycling_iterations))
        if not self._has_one_graph:
            self._recorder.warm_up_run(self._run_update)

    def record(self, num_recycling_iterations: int) -> None:
        """Capture a micro-batch and, with the first one, the update."""
        self._captures[num_recycling_iterations] = self._recorder.record(
            lambda: self._run_graph_work(num_recycling_iterations)
        )
        if not self._has_one_graph and self._update_capture is None:
            self._update_capture = self._recorder.record(self._run_update)

    def release(self) -> None:
        """Release the graphs. Further steps run without one."""
        for capture in self._captures.values():
            capture.reset()
        self._captures.clear()
        if self._update_capture is not None:
            self._update_capture.reset()
            self._update_capture = None

    def run(
        self,
        micro_batches: Iterable[MicroBatch],
        *,
        step: int,
        learning_rate: float,
        num_recycling_iterations: int,
    ) -> StepResult:
        """Run a step as TrainStep.run does.

        Each micro-batch is requested after the previous one was launched.
        """
        self._step.fill_(step)
        self._learning_rate.fill_(learning_rate)
        self._train_step.zero_gradients()
        rows: list[Tensor] = []
        sample_ids: list[str] = []
        has_eager = False
        for batch in micro_batches:
            capture = self._capture_for(batch, num_recycling_iterations)
            if capture is None:
                has_eager = True
                rows.append(self._run_micro_batch(batch, num_recycling_iterations))
            else:
                _fill(self._input, batch, num_passes=num_recycling_iterations + 1)
                capture.replay()
                assert self._rows is not None
                # The next replay overwrites the rows.
                rows.append(self._rows.clone())
            sample_ids.extend(batch.sample_ids)
        self._train_step.check_num_micro_batches(len(rows), step=step)
        if self._update_capture is not None:
            self._update_capture.replay()
        elif not self._has_one_graph:
            self._run_update()
        self.num_eager_steps += has_eager
        assert self._packed is not None
        metrics = StepTensors(
            packed=self._packed.clone(),
            local_terms=torch.cat(rows),
            term_names=self._term_names,
        )
        return self._train_step.result(
            metrics,
            step=step,
            learning_rate=learning_rate,
            num_recycling_iterations=num_recycling_iterations,
            sample_ids=tuple(sample_ids),
        )

    def _capture_for(self, batch: MicroBatch, num_recycling_iterations: int) -> Capture | None:
        """Return the graph that fits a micro-batch, or None."""
        num_passes = num_recycling_iterations + 1
        has_same_layout = all(
            (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
            for a, b in zip(_used(self._input, num_passes), _used(batch, num_passes))
        )
        return self._captures.get(num_recycling_iterations) if has_same_layout else None

    def _run_graph_work(self, num_recycling_iterations: int) -> None:
        """Run the work of a micro-batch's graph."""
        rows = self._run_micro_batch(self._input, num_recycling_iterations)
        self._rows = _store(rows, self._rows)

    def _run_micro_batch(self, batch: MicroBatch, num_recycling_iterations: int) -> Tensor:
        """Run forward and backward pass, and the update if a step has one micro-batch."""
        terms = self._train_step.forward_backward(
            batch,
            self._numbers,
            num_recycling_iterations=num_recycling_iterations,
            is_last=self._has_one_graph,
        )
        self._term_names = tuple(terms.terms)
        if self._has_one_graph:
            self._run_update()
        return local_rows(terms)

    def _run_update(self) -> None:
        """Run the work of the update's graph."""
        packed = self._train_step.update(self._learning_rate, num_terms=len(self._term_names))
        self._packed = _store(packed, self._packed)


def _store(values: Tensor, memory: Tensor | None) -> Tensor:
    """Copy values into `memory` and return it.

    The first call has no memory and allocates it. It is part of a warm-up run, so the memory is
    outside the pool of the graphs.
    """
    memory = torch.empty_like(values) if memory is None else memory
    memory.copy_(values)
    return memory


def _used(batch: MicroBatch, num_passes: int) -> list[Tensor]:
    """Return the tensors that the model reads, with num_passes slices of per-pass features."""
    features: FeatureBatch = batch.features
    return [
        getattr(features, name)[:, :num_passes] if spec.per_pass else getattr(features, name)
        for name, spec in FEATURES.items()
    ] + [batch.slots]


def _fill(inputs: MicroBatch, batch: MicroBatch, *, num_passes: int) -> None:
    """Copy the tensors that the model reads into the static inputs."""
    for target, source in zip(_used(inputs, num_passes), _used(batch, num_passes)):
        target.copy_(source, non_blocking=True)
