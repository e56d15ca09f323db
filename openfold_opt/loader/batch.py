"""A micro-batch of one rank: in wire format, as workers send it, and on the device."""

import dataclasses

import numpy as np
import torch


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """Metadata of a micro-batch."""

    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    slots: torch.Tensor
    """int64 [batch], indices of the samples in the global batch; they select the dropout masks."""
    step: int
    """Optimizer step that uses the batch, counted from 0; -1 in evaluation."""
    micro: int
    """Index of the micro-batch in its step, counted from 0."""
    position: int
    """Position in this rank's stream of micro-batches, counted from 0; see mark_consumed."""
    queue_depth: int
    """Number of prepared micro-batches that remained in the loader when this one was delivered."""
    reorder_distance: int
    """Number of positions by which this one was ahead of the first missing one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WireBatch(BatchInfo):
    """A micro-batch in host memory, in wire format."""

    arrays: dict[str, np.ndarray]
    """All wire features of openfold_opt.loader.wire_format."""

    def loaded(self, features: dict[str, torch.Tensor], *, slots: torch.Tensor) -> "LoadedBatch":
        """Return the same micro-batch with decoded features in place of the arrays."""
        info = {item.name: getattr(self, item.name) for item in dataclasses.fields(BatchInfo)}
        return LoadedBatch(**{**info, "slots": slots}, features=features)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedBatch(BatchInfo):
    """A micro-batch on the device.

    `features` has every name of openfold_opt.protein.features: shared features [batch, ...],
    per-pass features [batch, num_passes, ...].
    """

    features: dict[str, torch.Tensor]
