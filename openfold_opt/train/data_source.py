"""Where a run's samples come from: a door that the loop opens after the clock started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from openfold_opt.loader.batch import LoadedBatch
from openfold_opt.loader.expand import expand_batch
from openfold_opt.loader.loader import EvaluationLoader, TrainingLoader
from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.loader.sampler import SampleStream, TrainingSampler, ValidationSampler
from openfold_opt.loader.staging import Staging, build_staging
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig
from openfold_opt.train.selection import complain_of_counts, select_training, select_validation


class OpenData(Protocol):
    """Samples of one rank, ready to be read."""

    train_samples: int
    eval_samples: int
    """Chains to train on and to evaluate, over all ranks."""

    def training_batches(
        self, *, start_step: int, start: StreamState | None, device: torch.device, report: Callable[[str], None]
    ) -> Iterator[LoadedBatch]:
        """Micro-batches of this rank without end, on the device, from optimiser step `start_step` (from 0) on.

        start: what `training_state` told when the run was interrupted; None: steps were taken in order.
        report: gets a line for each batch left out and each worker replaced.
        """

    def mark_consumed(self, batch: LoadedBatch) -> None:
        """Says that a step has used a training batch."""

    def training_state(self) -> StreamState | None:
        """Which part of this rank's stream steps have used."""

    def evaluation_chains(self, *, device: torch.device) -> Iterable[tuple[str, Mapping[str, Tensor]]]:
        """(chain id, features of a batch of one on the device) of this rank's chains; may be asked for again."""

    def close(self) -> None:
        """End workers and close files; a second call does nothing."""


class DataSource(Protocol):
    """A data set that was named but not read."""

    def checksum(self) -> str | None:
        """Checksum of the index; the only thing that may be read before the clock starts."""

    def open(self, *, data_axis: AxisGroup, dap_axis: AxisGroup, peers: AxisGroup, seed: int) -> OpenData:
        """Select chains and start the workers. Raises ValueError if nothing is left to train on or evaluate."""


class ShardDataSource:
    """Samples from converted shards."""

    def __init__(self, data_dir: Path, config: RunConfig) -> None:
        self._data_dir = data_dir
        self._config = config

    def checksum(self) -> str:
        return ShardIndex.load(self._data_dir).checksum

    def open(self, *, data_axis: AxisGroup, dap_axis: AxisGroup, peers: AxisGroup, seed: int) -> OpenData:
        return ShardData(self._data_dir, self._config, data_axis=data_axis, dap_axis=dap_axis, peers=peers, seed=seed)


class ShardData:
    """The chains of one rank: a stream to train on, and its part of the validation set."""

    def __init__(
        self, data_dir: Path, config: RunConfig, *, data_axis: AxisGroup, dap_axis: AxisGroup, peers: AxisGroup, seed: int
    ) -> None:
        index = ShardIndex.load(data_dir)
        chains = select_training(index, config.selection)
        validation = select_validation(index, config.selection)
        self.train_samples = len(chains)
        self.eval_samples = len(validation)
        complaint = complain_of_counts(
            train_samples=self.train_samples, eval_samples=self.eval_samples, config=config.selection
        )
        if complaint is not None:
            raise ValueError(complaint)
        self._data_dir = data_dir
        self._config = config
        self._dap_axis = dap_axis
        self._sampler = TrainingSampler(
            [chain.chain_id for chain in chains], [chain.weight for chain in chains], seed=seed
        )
        self._stream = SampleStream(
            rank=data_axis.rank,
            size=data_axis.size,
            local_batch_size=config.local_batch_size,
            accumulation=config.accumulation,
        )
        self._evaluation = EvaluationLoader(
            data_dir,
            _chains_of_rank(index, validation, peers),
            data=config.data,
            loader=config.loader,
        )
        self._training: TrainingLoader | None = None
        self._staging: Staging | None = None

    def training_batches(
        self, *, start_step: int, start: StreamState | None, device: torch.device, report: Callable[[str], None]
    ) -> Iterator[LoadedBatch]:
        self.close()
        self._training = TrainingLoader(
            self._data_dir,
            self._sampler,
            data=self._config.data,
            loader=self._config.loader,
            stream=self._stream,
            dap=self._dap_axis,
            start_step=start_step,
            start=start,
            report=report,
        )
        self._staging = build_staging(iter(self._training), device=device, config=self._config.loader)
        return self._staging

    def mark_consumed(self, batch: LoadedBatch) -> None:
        if self._training is not None:
            self._training.mark_consumed(batch.position)

    def training_state(self) -> StreamState | None:
        return None if self._training is None else self._training.state()

    def evaluation_chains(self, *, device: torch.device) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        for batch in self._evaluation:
            yield batch.chain_ids[0], expand_batch(batch.arrays, device=device)

    def close(self) -> None:
        if self._training is not None:
            self._training.close()
            self._training = None
        if self._staging is not None:
            self._staging.close()
            self._staging = None


def _chains_of_rank(index: ShardIndex, chain_ids: list[str], peers: AxisGroup) -> tuple[str, ...]:
    """Longest first, dealt out in turn, so that every rank gets its share of the long ones."""
    longest_first = sorted(chain_ids, key=lambda chain_id: -index.by_id[chain_id].sequence_length)
    return ValidationSampler(longest_first).chains_of_rank(peers.rank, peers.size)
