"""Evaluation as graphs, one for each range of lengths: a chain is padded to the longest of its range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.features import FEATURES
from openfold_opt.train.graphs.recorder import Capture, Recorder

BUCKET = 64
"""Residues between the lengths that are recorded: at most so many, less one, are padding."""


def bucket_lengths(longest: int) -> list[int]:
    """Lengths to record for chains up to `longest`, longest first: the memory that one takes serves the others."""
    return list(range(-(-longest // BUCKET) * BUCKET, 0, -BUCKET))


class EvaluationGraphs:
    """Scores chains by replaying what was recorded for their range of lengths. Masks keep the padding out of what is scored."""

    def __init__(self, compute: Callable[[FeatureBatch], Tensor], recorder: Recorder) -> None:
        """compute: batch of one chain -> its score [1], as work for the device alone."""
        self._compute = compute
        self._recorder = recorder
        self._inputs: dict[int, FeatureBatch] = {}
        self._scores: dict[int, Tensor] = {}
        self._captures: dict[int, Capture] = {}

    def warm_up_run(self, batches: Iterable[FeatureBatch]) -> Iterator[int]:
        """Scores each batch of one chain and takes its memory for a graph; yields its length when done."""
        for batch in batches:
            length = batch.aatype.shape[1]
            self._inputs[length] = batch
            self._scores[length] = torch.empty(1, device=batch.aatype.device)
            self._recorder.warm_up_run(lambda length=length: self._work(length))
            yield length

    def record(self) -> None:
        """Records a graph for each length that was rehearsed."""
        for length in self._inputs:
            self._captures[length] = self._recorder.record(lambda length=length: self._work(length))

    def release(self) -> None:
        """Give the graphs up; no chain fits one from now on."""
        for capture in self._captures.values():
            capture.reset()
        self._captures.clear()

    def _work(self, length: int) -> None:
        self._scores[length].copy_(self._compute(self._inputs[length]))

    def score(self, batch: FeatureBatch) -> Tensor | None:
        """[1], to be read before the next chain of this range; None if the chain fits no graph."""
        lengths = [length for length in self._captures if length >= batch.aatype.shape[1]]
        if not lengths or not _fits(self._inputs[min(lengths)], batch):
            return None
        length = min(lengths)
        _fill(self._inputs[length], batch)
        self._captures[length].replay()
        return self._scores[length]


def _fits(inputs: FeatureBatch, batch: FeatureBatch) -> bool:
    """Whether all dims but those of residues are the same."""
    for name, spec in FEATURES.items():
        ours, theirs = getattr(inputs, name), getattr(batch, name)
        dims = spec.leading_dims(batched=True) + spec.shape
        same = [a == b for dim, a, b in zip(dims, ours.shape, theirs.shape) if dim != "N_res"]
        if (
            ours.ndim != theirs.ndim
            or not all(same)
            or (ours.dtype, ours.device) != (theirs.dtype, theirs.device)
        ):
            return False
    return True


def _fill(inputs: FeatureBatch, batch: FeatureBatch) -> None:
    for name, spec in FEATURES.items():
        target, source = getattr(inputs, name), getattr(batch, name)
        if target.shape != source.shape:
            target.fill_(spec.pad_value)
        target[tuple(slice(0, size) for size in source.shape)].copy_(source, non_blocking=True)
