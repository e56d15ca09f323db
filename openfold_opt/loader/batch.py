"""A micro-batch of one rank: on the wire, as workers send it, and on the device, as a step uses it."""

import dataclasses

import numpy as np
import torch


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What a micro-batch is, beside its features."""

    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    slots: torch.Tensor
    """int64 [batch]: places in the global batch of the step, which name the dropout masks of these samples."""
    step: int
    """Optimizer step that it is for, from 0; -1 in evaluation."""
    micro: int
    """Micro-batch of the step, from 0."""
    position: int
    """Place in this rank's stream of micro-batches, from 0: what is to be marked as consumed."""
    queue_depth: int
    """Prepared micro-batches that the loader held when it gave this one away."""
    reorder_distance: int
    """How many places this one was ahead of the first that was missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WireBatch(BatchInfo):
    """A micro-batch in host memory, compact."""

    arrays: dict[str, np.ndarray]
    """Every wire feature of openfold_opt.loader.wire_format."""

    def loaded(self, features: dict[str, torch.Tensor], *, slots: torch.Tensor) -> "LoadedBatch":
        """The same micro-batch with features made from the arrays."""
        info = {item.name: getattr(self, item.name) for item in dataclasses.fields(BatchInfo)}
        return LoadedBatch(**{**info, "slots": slots}, features=features)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedBatch(BatchInfo):
    """A micro-batch on the device.

    `features` has every name of openfold_opt.protein.features: shared features [batch, ...], per-pass features
    [batch, num_passes, ...].
    """

    features: dict[str, torch.Tensor]
