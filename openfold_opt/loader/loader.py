"""The two loaders: an endless stream of training batches, and validation chains one at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from openfold_opt.loader.batch import LoadedBatch, stack_samples
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.loader.random_streams import evaluation_seed
from openfold_opt.loader.sample import make_evaluation_sample, make_training_sample
from openfold_opt.loader.sampler import SampleStream, TrainingSampler
from openfold_opt.loader.workers import OrderedWorkers
from openfold_opt.protein.reader import ShardReader


@dataclass(frozen=True, kw_only=True)
class BatchLabel:
    """What a batch is, beside its features."""

    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    slots: tuple[int, ...]
    step: int
    micro: int


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """Prepares the micro-batches of one rank; position p is micro-batch p % accumulation of step p // accumulation."""

    reader: ShardReader
    sampler: TrainingSampler
    data: DataConfig
    stream: SampleStream

    def label(self, position: int) -> BatchLabel:
        """Chains, seeds and slots of a micro-batch: arithmetic, nothing is read."""
        step, micro = self.stream.step_of(position)
        slots = tuple(self.stream.slots(micro))
        samples = [self.sampler.sample(step * self.stream.global_batch_size + slot) for slot in slots]
        chain_ids, seeds = zip(*samples)
        return BatchLabel(chain_ids=chain_ids, sample_seeds=seeds, slots=slots, step=step, micro=micro)

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
        samples = ", ".join(f"{chain_id} (seed {seed})" for chain_id, seed in zip(label.chain_ids, label.sample_seeds))
        return f"training step {label.step}, micro-batch {label.micro}: {samples}"


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """Prepares validation chains, one per position."""

    reader: ShardReader
    chain_ids: tuple[str, ...]
    data: DataConfig

    def __call__(self, position: int) -> tuple[BatchLabel, dict[str, np.ndarray]]:
        chain_id = self.chain_ids[position]
        sample = make_evaluation_sample(self.reader, chain_id, config=self.data)
        label = BatchLabel(chain_ids=(chain_id,), sample_seeds=(evaluation_seed(chain_id),), slots=(0,), step=-1, micro=0)
        return label, stack_samples([sample])

    def describe(self, position: int) -> str:
        """The chain in words."""
        return f"validation chain {self.chain_ids[position]}"


class TrainingLoader:
    """Iterates the micro-batches of one rank from `start_step` on, without end; a context manager.

    Workers begin to read samples at once: where a clock must run before data are touched, make the loader after it has started.

    Args:
        data_dir: converted data set.
        sampler: the global stream of (chain, seed).
        data: what is in a sample.
        loader: how it is prepared.
        stream: which part of the global stream this rank takes.
        start_step: optimiser step to begin with; all the state that resuming needs.

    Raises:
        LoaderError: from iteration, where a batch cannot be prepared; it names the samples.
    """

    def __init__(
        self,
        data_dir: str | Path,
        sampler: TrainingSampler,
        *,
        data: DataConfig,
        loader: LoaderConfig,
        stream: SampleStream,
        start_step: int = 0,
    ) -> None:
        task = TrainingTask(reader=ShardReader(data_dir), sampler=sampler, data=data, stream=stream)
        self._workers = OrderedWorkers(task, config=loader, first=start_step * stream.accumulation)

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self

    def __next__(self) -> LoadedBatch:
        return _to_batch(*next(self._workers))

    def close(self) -> None:
        """Ends the workers; safe to call twice."""
        self._workers.close()

    def __enter__(self) -> "TrainingLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EvaluationLoader:
    """Iterates validation chains of one rank, whole and one at a time, as batches of one; may be iterated many times.

    A sample depends on its chain's id alone. Each iteration starts its own workers and ends them, also when left early.

    Args:
        data_dir: converted data set.
        chain_ids: the chains of this rank (ValidationSampler.chains_of_rank), possibly none.
        data: what is in a sample.
        loader: how it is prepared.
    """

    def __init__(self, data_dir: str | Path, chain_ids: Sequence[str], *, data: DataConfig, loader: LoaderConfig) -> None:
        self._task = EvaluationTask(reader=ShardReader(data_dir), chain_ids=tuple(chain_ids), data=data)
        self._loader = loader

    def __len__(self) -> int:
        return len(self._task.chain_ids)

    def __iter__(self) -> Iterator[LoadedBatch]:
        with OrderedWorkers(self._task, config=self._loader, end=len(self)) as workers:
            for label, arrays in workers:
                yield _to_batch(label, arrays)


def _to_batch(label: BatchLabel, arrays: dict[str, np.ndarray]) -> LoadedBatch:
    return LoadedBatch(
        features={name: torch.from_numpy(array) for name, array in arrays.items()},
        chain_ids=label.chain_ids,
        sample_seeds=label.sample_seeds,
        slots=torch.tensor(label.slots, dtype=torch.int64),
        step=label.step,
        micro=label.micro,
    )
