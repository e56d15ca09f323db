"""CUDA graphs of evaluation, one per range of lengths. Chains are padded to the end of a range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.graphs.recorder import Capture, Recorder

RANGE_RESIDUES = 64
"""Residues per range of lengths; a chain gets at most RANGE_RESIDUES - 1 residues of padding."""


def lengths_to_capture(longest: int) -> list[int]:
    """Return the lengths to capture for chains of up to `longest` residues.

    They are in descending order, so that shorter ones can reuse the memory of longer ones.
    """
    # Round up to a multiple.
    top = -(-longest // RANGE_RESIDUES) * RANGE_RESIDUES
    return list(range(top, 0, -RANGE_RESIDUES))


class EvaluationGraphs:
    """Scores chains by replaying the graph of their range of lengths. Masks exclude the padding."""

    def __init__(self, compute: Callable[[FeatureBatch], Tensor], recorder: Recorder) -> None:
        """compute: returns the score [1] of a batch of one without synchronizing the device."""
        self._compute = compute
        self._recorder = recorder
        self._inputs: dict[int, FeatureBatch] = {}
        self._scores: dict[int, Tensor] = {}
        self._captures: dict[int, Capture] = {}

    def warm_up_run(self, batches: Iterable[FeatureBatch]) -> Iterator[int]:
        """Score each batch of one, keep it as the static input of a graph, and yield its length."""
        for batch in batches:
            length = batch.aatype.shape[1]
            self._inputs[length] = batch
            self._scores[length] = torch.empty(1, device=batch.aatype.device)
            self._recorder.warm_up_run(partial(self._run, length))
            yield length

    def record(self) -> None:
        """Capture a graph for each length of the warm-up run."""
        for length in self._inputs:
            self._captures[length] = self._recorder.record(partial(self._run, length))

    def release(self) -> None:
        """Release the graphs. `score` returns None from now on."""
        for capture in self._captures.values():
            capture.reset()
        self._captures.clear()

    def _run(self, length: int) -> None:
        self._scores[length].copy_(self._compute(self._inputs[length]))

    def score(self, batch: FeatureBatch) -> Tensor | None:
        """Return the score [1] of a chain, or None if no graph fits it.

        Read the score before the next call: the tensor is overwritten.
        """
        lengths = [length for length in self._captures if length >= batch.aatype.shape[1]]
        if not lengths or not _fits(self._inputs[min(lengths)], batch):
            return None
        length = min(lengths)
        fill_features(self._inputs[length], batch)
        self._captures[length].replay()
        return self._scores[length]


def _fits(inputs: FeatureBatch, batch: FeatureBatch) -> bool:
    """Return whether all dims except those of residues are equal."""
    for name, spec in FEATURES.items():
        target, source = getattr(inputs, name), getattr(batch, name)
        dims = spec.leading_dims(batched=True) + spec.shape
        same = [a == b for dim, a, b in zip(dims, target.shape, source.shape) if dim != "N_res"]
        if (
            target.ndim != source.ndim
            or not all(same)
            or (target.dtype, target.device) != (source.dtype, source.device)
        ):
            return False
    return True


def fill_features(inputs: FeatureBatch, batch: FeatureBatch) -> None:
    """Copy features into static inputs with more residues, and set the others to padding."""
    for name, spec in FEATURES.items():
        target, source = getattr(inputs, name), getattr(batch, name)
        if target.shape != source.shape:
            target.fill_(spec.pad_value)
        target[tuple(slice(0, size) for size in source.shape)].copy_(source, non_blocking=True)
