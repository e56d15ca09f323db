"""Micro-batches of one rank, in the wire format or decoded, and what workers deliver."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

WireFeatures = dict[str, np.ndarray]
"""All features of openfold_opt.loader.wire_format, in host memory."""

ModelFeatures = dict[str, Tensor]
"""All features of openfold_opt.protein.features, on the device: shared ones [batch, ...], per-pass
ones [batch, num_passes, ...]."""

Features = TypeVar("Features")
NewFeatures = TypeVar("NewFeatures")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedBatch(Generic[Features]):
    """A micro-batch, with WireFeatures or ModelFeatures."""

    features: Features
    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    slots: Tensor
    """int64 [batch], indices of the samples in the global batch; they select the dropout masks."""
    step: int
    """Optimizer step that uses the batch, counted from 1; 0 in evaluation."""
    micro: int
    """Index of the micro-batch in its step, counted from 0."""
    position: int
    """Position in this rank's stream of micro-batches, counted from 0; see mark_consumed."""
    queue_depth: int
    """Number of prepared micro-batches that remained in the loader when this one was delivered."""
    reorder_distance: int
    """Number of positions by which this one was ahead of the first missing one."""
    data_sets: tuple[int, ...] = ()
    """Data set of each sample (loader.sampler); empty if there is only one."""

    def with_features(self, features: NewFeatures, *, slots: Tensor) -> "LoadedBatch[NewFeatures]":
        """Return the same micro-batch with other features, and slots on their device."""
        info = vars(self) | {"features": features, "slots": slots}
        return LoadedBatch(**info)


DATA_SET_NAMES = ("training set", "distillation set")


def name_samples(
    chain_ids: Sequence[str], sample_seeds: Sequence[int], data_sets: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the names of samples for messages: chain, data set if there are two, and seed."""
    names = [f"{DATA_SET_NAMES[number]}, " for number in data_sets] or [""] * len(chain_ids)
    return tuple(
        f"{chain_id} ({name}seed {seed})"
        for chain_id, name, seed in zip(chain_ids, names, sample_seeds, strict=True)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delivery:
    """A batch that a worker prepared. WorkerStream sets the fields that have a default."""

    position: int
    description: Any
    """What the task returned with the arrays: a BatchLabel, with chains and seeds."""
    arrays: WireFeatures
    preparation_seconds: float
    queue_depth: int = 0
    """Number of prepared batches that remain."""
    reorder_distance: int = 0
    """Number of positions by which it was ahead of the first missing batch; 0 to window."""
    skipped: tuple[int, ...] = ()
    """Positions skipped since the previous delivery."""
