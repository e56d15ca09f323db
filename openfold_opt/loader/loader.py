"""The training loader, an endless stream of batches, and the loader of validation chains."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from openfold_opt.loader.batch import Delivery, LoadedBatch, WireFeatures, name_samples
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.node_sharing import SharedDeliveries
from openfold_opt.loader.random_streams import evaluation_seed
from openfold_opt.loader.reorder_window import ConsumedPositions, StreamState
from openfold_opt.loader.sample import make_evaluation_sample, make_training_sample
from openfold_opt.loader.sampler import DISTILLATION_SET, SampleStream, TrainingSampler
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.loader.workers import WorkerStream
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.protein.reader import ShardReader


@dataclass(frozen=True, kw_only=True)
class BatchLabel:
    """Chains and seeds of the samples of a batch."""

    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    data_sets: tuple[int, ...] = ()
    """Data set of each sample (loader.sampler); empty if there is only one."""


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """Prepares the micro-batches of one rank.

    With a reorder window, another step than SampleStream.step_of returns may use a position.
    """

    readers: tuple[ShardReader, ...]
    """Reader of the training set and, if there is one, of the distillation set."""
    sampler: TrainingSampler
    data: DataConfig
    stream: SampleStream

    def label(self, position: int) -> BatchLabel:
        """Compute the chains and seeds of a micro-batch without reading data."""
        samples = [self.sampler.sample(number) for number in self.stream.sample_numbers(position)]
        has_two = self.sampler.has_distillation
        return BatchLabel(
            chain_ids=tuple(sample.chain_id for sample in samples),
            sample_seeds=tuple(sample.seed for sample in samples),
            data_sets=tuple(sample.data_set for sample in samples) if has_two else (),
        )

    def __call__(self, position: int) -> tuple[BatchLabel, WireFeatures]:
        label = self.label(position)
        samples = [
            make_training_sample(
                self.readers[sample.data_set],
                sample.chain_id,
                seed=sample.seed,
                config=self.data,
                is_distilled=sample.data_set == DISTILLATION_SET,
            )
            for sample in map(self.sampler.sample, self.stream.sample_numbers(position))
        ]
        return label, stack_samples(samples)

    def describe(self, position: int) -> str:
        """Describe the samples of a micro-batch for messages, with its step in strict order."""
        label = self.label(position)
        samples = ", ".join(name_samples(label.chain_ids, label.sample_seeds, label.data_sets))
        step, micro = self.stream.step_of(position)
        return f"training step {step}, micro-batch {micro + 1}: {samples}"


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """Prepares validation chains, one per position."""

    reader: ShardReader
    chain_ids: tuple[str, ...]
    data: DataConfig

    def __call__(self, position: int) -> tuple[BatchLabel, WireFeatures]:
        chain_id = self.chain_ids[position]
        sample = make_evaluation_sample(self.reader, chain_id, config=self.data)
        return BatchLabel(
            chain_ids=(chain_id,), sample_seeds=(evaluation_seed(chain_id),)
        ), stack_samples([sample])

    def describe(self, position: int) -> str:
        """Describe the chain for messages."""
        return f"validation chain {self.chain_ids[position]}"


class TrainingLoader:
    """Iterates over the micro-batches of one rank. A context manager.

    The iteration ends after the steps of the stream's phase, if their number is known. Every sample
    of the phase is then delivered once; a skipped one is replaced by a sample of no phase.

    Workers start to read samples immediately: if a timer must run before data are touched, create
    the loader after the timer has started. With `loader.window` > 0 micro-batches are delivered in
    the order in which they become ready, within the window (docs/loader.md). Their step, micro and
    slots follow the order of delivery, so that dropout masks do not repeat within a step.

    Args:
        data_dir: directory of the converted data set.
        sampler: the global stream of (chain, seed).
        data: configuration of the samples.
        loader: configuration of their preparation.
        stream: the part of the global stream that this rank reads.
        dap: the ranks that read the same part. They get the same batches, prepared once per node.
        first_step: first optimizer step of the run, counted from 1.
        start: the consumed part of the stream, from `state`; None: what the steps before
            `first_step` consume in strict order.
        report: called with a message for each skipped batch and each replaced worker.
        distillation_dir: directory of the distillation set, if the sampler has one.

    Raises:
        LoaderError: from iteration, if a batch cannot be prepared and the error budget is
            exhausted; the message names the samples.
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
        first_step: int = 1,
        start: StreamState | None = None,
        report: Callable[[str], None] = warnings.warn,
        distillation_dir: str | Path | None = None,
    ) -> None:
        folders = [data_dir] if distillation_dir is None else [data_dir, distillation_dir]
        readers = tuple(ShardReader(folder) for folder in folders)
        task = TrainingTask(readers=readers, sampler=sampler, data=data, stream=stream)
        self._stream = stream
        num_steps = first_step - 1 - stream.origin.steps_before
        self._num_delivered = num_steps * stream.accumulation
        start = StreamState(low=self._num_delivered) if start is None else start
        num_skipped = start.num_consumed - self._num_delivered
        end = None if stream.num_positions is None else stream.num_positions + num_skipped
        self._consumed = ConsumedPositions(start)
        self._deliveries = SharedDeliveries(
            lambda: WorkerStream(task, config=loader, start=start, end=end, report=report),
            axis=dap,
            window=loader.window,
            timeout_seconds=loader.timeout_seconds * (loader.max_attempts + 1),
        )

    def __iter__(self) -> Iterator[LoadedBatch[WireFeatures]]:
        return self

    def __next__(self) -> LoadedBatch[WireFeatures]:
        delivery = next(self._deliveries)
        for position in delivery.skipped:
            self._consumed.add(position)
        step, micro = self._stream.step_of(self._num_delivered)
        self._num_delivered += 1
        return _to_batch(delivery, slots=self._stream.slots(micro), step=step, micro=micro)

    def mark_consumed(self, position: int) -> None:
        """Mark a micro-batch as used by a step; a resumed run does not repeat it."""
        self._consumed.add(position)

    def state(self) -> StreamState:
        """Return the positions that steps consumed or that were skipped.

        Batches that are in preparation, or delivered but not marked, are not included.
        """
        return self._consumed.state()

    def close(self) -> None:
        """Stop the workers. Safe to call twice."""
        self._deliveries.close()

    def __enter__(self) -> "TrainingLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EvaluationLoader:
    """Iterates over the validation chains of one rank, uncropped, as batches of one sample.

    Can be iterated repeatedly. A sample depends only on the id of its chain. Each iteration starts
    workers and stops them, also when it is left early.

    Args:
        data_dir: directory of the converted data set.
        chain_ids: the chains of this rank, possibly none.
        data: configuration of the samples.
        loader: configuration of their preparation.
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

    def __iter__(self) -> Iterator[LoadedBatch[WireFeatures]]:
        # The validation score averages over all chains, so none may be skipped.
        with WorkerStream(
            self._task, config=self._loader, end=len(self), error_budget=0
        ) as deliveries:
            for delivery in deliveries:
                yield _to_batch(delivery, slots=range(1), step=0, micro=0)


def _to_batch(
    delivery: Delivery, *, slots: range, step: int, micro: int
) -> LoadedBatch[WireFeatures]:
    label: BatchLabel = delivery.description
    return LoadedBatch(
        features=delivery.arrays,
        chain_ids=label.chain_ids,
        sample_seeds=label.sample_seeds,
        slots=torch.tensor(slots, dtype=torch.int64),
        step=step,
        micro=micro,
        position=delivery.position,
        queue_depth=delivery.queue_depth,
        reorder_distance=delivery.reorder_distance,
        data_sets=label.data_sets,
    )
