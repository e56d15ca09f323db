"""Data sources of a run. The trainer opens a source only after run_start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from openfold_opt.loader.batch import LoadedBatch, ModelFeatures, WireFeatures
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.device_prefetcher import DevicePrefetcher, build_prefetcher
from openfold_opt.loader.loader import EvaluationLoader, TrainingLoader
from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.loader.sampler import (
    SampleStream,
    StreamOrigin,
    TrainingSampler,
    WeightedChains,
)
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object
from openfold_opt.parallel.context import TRAIN, ParallelContext
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig
from openfold_opt.train.dataset_split import (
    held_out_chains,
    select_training,
    select_validation,
    validate_counts,
)
from openfold_opt.train.distillation_set import (
    check_distillation,
    data_checksum,
    open_distillation,
)

WHOLE_RUN = StreamOrigin()


class OpenData(Protocol):
    """The samples of one rank, ready to be read."""

    train_samples: int
    """Number of training chains of all ranks."""
    eval_samples: int
    """Number of evaluation chains of all ranks."""
    held_out: tuple[str, ...]
    """Sorted ids of the chains that are never trained on, because their cluster is evaluated."""

    def training_batches(
        self,
        *,
        first_step: int,
        start: StreamState | None,
        device: torch.device,
        report: Callable[[str], None],
        origin: StreamOrigin = WHOLE_RUN,
    ) -> Iterator[LoadedBatch[ModelFeatures]]:
        """Return an iterator over the micro-batches of this rank, on the device.

        It ends after the phase of `origin`, and is endless if the number of its steps is None.

        first_step: first optimizer step of the run, counted from 1. start: value of
        `training_state` when the run was interrupted; None: samples were used in order. report:
        receives a line for each skipped batch and each restarted worker.
        """

    def mark_consumed(self, batch: LoadedBatch[ModelFeatures]) -> None:
        """Record that a step has used a training batch."""

    def training_state(self) -> StreamState | None:
        """Return which part of this rank's sample stream the steps have used."""

    def evaluation_chains(
        self, *, device: torch.device, together: bool
    ) -> Iterable[tuple[str, Mapping[str, Tensor]]]:
        """Return pairs of a chain id and the features of a batch of one, on the device.

        together: True for the chains that the ranks of this rank's DAP group evaluate jointly,
        False for those that this rank evaluates alone. May be called several times.
        """

    def close(self) -> None:
        """Stop workers and close files. A second call does nothing."""


class DataSource(Protocol):
    """A data set that has not been read yet."""

    def checksum(self) -> str | None:
        """Return the checksum of the index. Nothing else may be read before run_start."""

    def open(self, config: RunConfig, context: ParallelContext, *, seed: int) -> OpenData:
        """Select the chains and return the samples of this rank.

        config: the configuration with the accumulation and kernels that this run uses.
        Raises ValueError if there are no chains to train on or to evaluate.
        """


class ShardDataSource:
    """Data source for a folder of converted shards and, optionally, one of distilled chains."""

    def __init__(self, data_dir: Path, distillation_dir: Path | None = None) -> None:
        self._data_dir = data_dir
        self._distillation_dir = distillation_dir
        self._checksum: str | None = None
        self._is_checked = False
        """Whether the distillation set was compared with the validation chains."""

    def checksum(self) -> str:
        if self._checksum is None:
            # Cached, since the index of the full data set takes seconds to read.
            self._checksum = data_checksum(self._data_dir, self._distillation_dir)
        return self._checksum

    def open(self, config: RunConfig, context: ParallelContext, *, seed: int) -> OpenData:
        data = ShardData(
            self._data_dir,
            config,
            context,
            seed=seed,
            distillation_dir=self._distillation_dir,
            is_checked=self._is_checked,
        )
        self._is_checked = True
        return data


class ShardData:
    """The samples of one rank: its training stream and its part of the validation set."""

    def __init__(
        self,
        data_dir: Path,
        config: RunConfig,
        context: ParallelContext,
        *,
        seed: int,
        distillation_dir: Path | None = None,
        is_checked: bool = False,
    ) -> None:
        """is_checked: whether the distillation set is known to have no validation chain."""
        check_distillation(config.selection, distillation_dir)
        index = ShardIndex.load(data_dir)
        chains = select_training(index, config.selection)
        validation = select_validation(index, config.selection)
        self.train_samples = len(chains)
        self.eval_samples = len(validation)
        self.held_out = tuple(sorted(held_out_chains(index, config.selection)))
        count_error = validate_counts(
            train_samples=self.train_samples,
            eval_samples=self.eval_samples,
            config=config.selection,
        )
        if count_error is not None:
            raise ValueError(count_error)
        self._data_dir = data_dir
        self._distillation_dir = distillation_dir
        self._config = config
        self._dap_axis = context.dap
        self._sampler = TrainingSampler(
            [chain.chain_id for chain in chains],
            [chain.weight for chain in chains],
            seed=seed,
            distilled=(
                None
                if distillation_dir is None
                else _open_on_ranks(
                    lambda is_checked: open_distillation(
                        data_dir, distillation_dir, config.selection, is_checked=is_checked
                    ),
                    context.training_ranks,
                    # Ranks that only evaluate draw no samples.
                    is_checked=is_checked or context.role != TRAIN,
                )
            ),
            distillation_probability=config.selection.distillation_probability,
        )
        self._data_axis = context.data
        lengths = {chain_id: index.by_id[chain_id].sequence_length for chain_id in validation}
        self._evaluation_loaders = {
            together: EvaluationLoader(data_dir, chain_ids, data=config.data, loader=config.loader)
            for together, chain_ids in split_evaluation(
                lengths, context, config.parallel.evaluation_dap_min_length
            ).items()
        }
        self._evaluation_batches: dict[bool, list[LoadedBatch[WireFeatures]]] = {}
        self._training: TrainingLoader | None = None
        self._prefetcher: DevicePrefetcher | None = None

    def training_batches(
        self,
        *,
        first_step: int,
        start: StreamState | None,
        device: torch.device,
        report: Callable[[str], None],
        origin: StreamOrigin = WHOLE_RUN,
    ) -> Iterator[LoadedBatch[ModelFeatures]]:
        # Stop the stream of an earlier call.
        self.close()
        self._training = TrainingLoader(
            self._data_dir,
            self._sampler,
            data=self._config.data,
            loader=self._config.loader,
            stream=sample_stream(self._config, self._data_axis, origin),
            dap=self._dap_axis,
            first_step=first_step,
            start=start,
            report=report,
            distillation_dir=self._distillation_dir,
        )
        self._prefetcher = build_prefetcher(
            iter(self._training), device=device, config=self._config.loader
        )
        return self._prefetcher

    def mark_consumed(self, batch: LoadedBatch[ModelFeatures]) -> None:
        if self._training is not None:
            self._training.mark_consumed(batch.position)

    def training_state(self) -> StreamState | None:
        return None if self._training is None else self._training.state()

    def evaluation_chains(
        self, *, device: torch.device, together: bool
    ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        for batch in self._prepared_evaluation(together):
            yield batch.chain_ids[0], decode_batch(batch.features, device=device)

    def _prepared_evaluation(self, together: bool) -> Iterator[LoadedBatch[WireFeatures]]:
        """Prepare the validation chains on the first call and cache them in the wire format.

        The features of a chain depend only on its id.
        """
        if together in self._evaluation_batches:
            yield from self._evaluation_batches[together]
            return
        cached = []
        for batch in self._evaluation_loaders[together]:
            # Copy the arrays: the loader may reuse their memory for the next batch.
            copies = {name: array.copy() for name, array in batch.features.items()}
            cached.append(replace(batch, features=copies))
            yield cached[-1]
        self._evaluation_batches[together] = cached

    def close(self) -> None:
        if self._training is not None:
            self._training.close()
            self._training = None
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None


def sample_stream(config: RunConfig, data: AxisGroup, origin: StreamOrigin) -> SampleStream:
    """Return the part of the sample stream that a rank of the data axis reads in a phase."""
    return SampleStream(
        rank=data.rank,
        size=data.size,
        local_batch_size=config.local_batch_size,
        accumulation=config.accumulation,
        origin=origin,
    )


def _open_on_ranks(
    open_set: Callable[[bool], WeightedChains], ranks: AxisGroup, *, is_checked: bool
) -> WeightedChains:
    """Open the distillation set on all ranks. Only the first one looks for validation chains in it.

    Raises ValueError on every rank if the first one does.
    """
    chains: WeightedChains | None = None
    message: str | None = None
    if ranks.rank == 0:
        try:
            chains = open_set(is_checked)
        except ValueError as error:
            message = str(error)
    message = broadcast_object(message, ranks)
    if message is not None:
        raise ValueError(message)
    return chains if chains is not None else open_set(True)


def split_evaluation(
    lengths: Mapping[str, int], context: ParallelContext, min_length_together: int | None
) -> dict[bool, tuple[str, ...]]:
    """Return the chains of this rank, keyed by whether its DAP group evaluates them jointly.

    lengths: residues of each chain. min_length_together: chains of at least this length are
    evaluated jointly; None: no chain is.
    """
    together = {
        chain_id: length
        for chain_id, length in lengths.items()
        if context.dap.size > 1
        and min_length_together is not None
        and length >= min_length_together
    }
    alone = {chain_id: length for chain_id, length in lengths.items() if chain_id not in together}
    return {
        True: balanced_share(together, context.data),
        False: balanced_share(alone, context.training_ranks),
    }


def balanced_share(lengths: Mapping[str, int], axis: AxisGroup) -> tuple[str, ...]:
    """Return this rank's chains, balanced over the ranks of an axis.

    Each chain, longest first, goes to the rank with the least work so far. The work for a chain is
    taken as its length squared.
    """
    work = [0] * axis.size
    shares: list[list[str]] = [[] for _ in range(axis.size)]
    for chain_id in sorted(lengths, key=lambda chain_id: (-lengths[chain_id], chain_id)):
        rank = work.index(min(work))
        work[rank] += lengths[chain_id] ** 2
        shares[rank].append(chain_id)
    return tuple(shares[axis.rank])
