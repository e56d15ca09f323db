"""The two loaders: an endless stream of training batches, and validation chains one at a time."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from openfold_opt.loader.batch import WireBatch
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.node_sharing import SharedDeliveries
from openfold_opt.loader.random_streams import evaluation_seed
from openfold_opt.loader.reorder_window import ConsumedPositions, StreamState
from openfold_opt.loader.sample import make_evaluation_sample, make_training_sample
from openfold_opt.loader.sampler import SampleStream, TrainingSampler
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.loader.workers import Delivery, WorkerStream
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.protein.reader import ShardReader


@dataclass(frozen=True, kw_only=True)
class BatchLabel:
    """What a batch is, beside its features."""

    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """Prepares the micro-batches of one rank; in order, position p is micro-batch p % accumulation of step p // accumulation."""

    reader: ShardReader
    sampler: TrainingSampler
    data: DataConfig
    stream: SampleStream

    def label(self, position: int) -> BatchLabel:
        """Chains and seeds of a micro-batch: arithmetic, nothing is read."""
        step, micro = self.stream.step_of(position)
        numbers = [step * self.stream.global_batch_size + slot for slot in self.stream.slots(micro)]
        chain_ids, seeds = zip(*(self.sampler.sample(number) for number in numbers))
        return BatchLabel(chain_ids=chain_ids, sample_seeds=seeds)

    def __call__(self, position: int) -> tuple[BatchLabel, dict[str, np.ndarray]]:
        label = self.label(position)
        samples = [
            make_training_sample(self.reader, chain_id, seed=seed, config=self.data)
            for chain_id, seed in zip(label.chain_ids, label.sample_seeds)
        ]
        return label, stack_samples(samples)

    def describe(self, position: int) -> str:
        """The samples of a micro-batch in words."""
        label = self.label(position)
        samples = ", ".join(
            f"{chain_id} (seed {seed})"
            for chain_id, seed in zip(label.chain_ids, label.sample_seeds)
        )
        step, micro = self.stream.step_of(position)
        return f"training step {step + 1}, micro-batch {micro + 1}: {samples}"


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """Prepares validation chains, one per position."""

    reader: ShardReader
    chain_ids: tuple[str, ...]
    data: DataConfig

    def __call__(self, position: int) -> tuple[BatchLabel, dict[str, np.ndarray]]:
        chain_id = self.chain_ids[position]
        sample = make_evaluation_sample(self.reader, chain_id, config=self.data)
        return BatchLabel(
            chain_ids=(chain_id,), sample_seeds=(evaluation_seed(chain_id),)
        ), stack_samples([sample])

    def describe(self, position: int) -> str:
        """The chain in words."""
        return f"validation chain {self.chain_ids[position]}"


class TrainingLoader:
    """Iterates the micro-batches of one rank without end; a context manager.

    Workers begin to read samples at once: where a clock must run before data are touched, make the loader after it has started.
    With `loader.window` > 0 micro-batches come in the order in which they get ready, within the window (docs/loader.md); step,
    micro and slots of each follow from the order of delivery, so that dropout masks do not repeat within a step.

    Args:
        data_dir: converted data set.
        sampler: the global stream of (chain, seed).
        data: what is in a sample.
        loader: how it is prepared.
        stream: which part of the global stream this rank takes.
        dap: the ranks that take the same part: they get the same batches, prepared once per node.
        start_step: optimizer step to begin with.
        start: which part of the stream is consumed already, as `state` told it; None: what start_step steps consume in order.
        report: gets a line for each batch left out and each worker replaced.

    Raises:
        LoaderError: from iteration, where a batch cannot be prepared and the error budget is used up; it names the samples.
    """

    def __init__(
        self,
        data_dir: str | Path,
        sampler: TrainingSampler,
        *,
        data: DataConfig,
        loader: LoaderConfig,
        stream: SampleStream,
        dap: AxisGroup = AxisGroup.single("dap"),
        start_step: int = 0,
        start: StreamState | None = None,
        report: Callable[[str], None] = warnings.warn,
    ) -> None:
        task = TrainingTask(reader=ShardReader(data_dir), sampler=sampler, data=data, stream=stream)
        self._stream = stream
        self._num_delivered = start_step * stream.accumulation
        start = StreamState(low=self._num_delivered) if start is None else start
        self._consumed = ConsumedPositions(start)
        self._deliveries = SharedDeliveries(
            lambda: WorkerStream(task, config=loader, start=start, report=report),
            axis=dap,
            window=loader.window,
            timeout_seconds=loader.timeout_seconds * (loader.max_attempts + 1),
        )

    def __iter__(self) -> Iterator[WireBatch]:
        return self

    def __next__(self) -> WireBatch:
        delivery = next(self._deliveries)
        for position in delivery.skipped:
            self._consumed.add(position)
        step, micro = self._stream.step_of(self._num_delivered)
        self._num_delivered += 1
        return _to_batch(delivery, slots=self._stream.slots(micro), step=step, micro=micro)

    def mark_consumed(self, position: int) -> None:
        """Says that a step has used the micro-batch of this position: a run that resumes will not see it again."""
        self._consumed.add(position)

    def state(self) -> StreamState:
        """What is consumed by steps, or left out for good; what workers hold or was only delivered is not in it."""
        return self._consumed.state()

    def close(self) -> None:
        """Ends the workers; safe to call twice."""
        self._deliveries.close()

    def __enter__(self) -> "TrainingLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EvaluationLoader:
    """Iterates validation chains of one rank, whole and one at a time, as batches of one; may be iterated many times.

    A sample depends on its chain's id alone. Each iteration starts its own workers and ends them, also when left early.

    Args:
        data_dir: converted data set.
        chain_ids: the chains of this rank, possibly none.
        data: what is in a sample.
        loader: how it is prepared.
    """

    def __init__(
        self,
        data_dir: str | Path,
        chain_ids: Sequence[str],
        *,
        data: DataConfig,
        loader: LoaderConfig,
    ) -> None:
        self._task = EvaluationTask(
            reader=ShardReader(data_dir), chain_ids=tuple(chain_ids), data=data
        )
        self._loader = loader

    def __len__(self) -> int:
        return len(self._task.chain_ids)

    def __iter__(self) -> Iterator[WireBatch]:
        # every chain counts in the average: none may be left out
        with WorkerStream(
            self._task, config=self._loader, end=len(self), error_budget=0
        ) as deliveries:
            for delivery in deliveries:
                yield _to_batch(delivery, slots=range(1), step=-1, micro=0)


def _to_batch(delivery: Delivery, *, slots: range, step: int, micro: int) -> WireBatch:
    label: BatchLabel = delivery.description
    return WireBatch(
        arrays=delivery.arrays,
        chain_ids=label.chain_ids,
        sample_seeds=label.sample_seeds,
        slots=torch.tensor(slots, dtype=torch.int64),
        step=step,
        micro=micro,
        position=delivery.position,
        queue_depth=delivery.queue_depth,
        reorder_distance=delivery.reorder_distance,
    )
