"""What the loaders yield, and stacking samples into it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from openfold_opt.protein.features import FEATURES


@dataclass(frozen=True, kw_only=True)
class LoadedBatch:
    """A micro-batch of one rank: in host memory as the loader gives it, on the device once it is staged.

    `features` has every name of openfold_opt.protein.features: shared features [batch, ...], per-pass features
    [batch, num_passes, ...].
    """

    features: dict[str, torch.Tensor]
    chain_ids: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    slots: torch.Tensor
    """int64 [batch]: places in the global batch of the step, which name the dropout masks of these samples."""
    step: int
    """Optimiser step that it is for, from 0; -1 in evaluation."""
    micro: int
    """Micro-batch of the step, from 0."""
    position: int
    """Place in this rank's stream of micro-batches, from 0: what is to be marked as consumed."""
    queue_depth: int
    """Prepared micro-batches that the loader held when it gave this one away."""
    reorder_distance: int
    """How many places this one was ahead of the first that was missing."""


def stack_samples(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Adds the batch dim in front: name -> [len(samples), ...]. A batch of one sample is a view, not a copy."""
    if len(samples) == 1:
        return {name: samples[0][name][None] for name in FEATURES}
    return {name: np.stack([sample[name] for sample in samples]) for name in FEATURES}
