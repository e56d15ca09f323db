"""Recompute a producer's output in the consumer's backward pass instead of saving it.

An autograd node that can recompute its results has the attribute `recompute`. A consumer of the
results looks it up, saves nothing, and recomputes them in its backward pass, which runs before
that of the producer.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor
from torch.autograd.function import FunctionCtx

AnyRecomputable = TypeVar("AnyRecomputable", bound="Recomputable")


class Recomputable:
    """Access to the saved tensors of an autograd node for the node and its consumers."""

    def __init__(self, node: FunctionCtx, results: Sequence[Tensor]) -> None:
        """Remember the node and the tensors that it is about to return."""
        self._node = weakref.ref(node)
        self._versions = _versions(results)
        self._saved: tuple[Tensor, ...] | None = None

    def saved(self) -> tuple[Tensor, ...]:
        """Return the tensors that the node has saved."""
        # Under activation checkpointing, saved tensors can be unpacked only once.
        if self._saved is None:
            self._saved = self._node().saved_tensors
        return self._saved

    def is_unmodified(self, results: Sequence[Tensor]) -> bool:
        """Return whether the first results were not modified in place since they were returned."""
        return _versions(results) == self._versions[: len(results)]

    def release(self) -> tuple[Tensor, ...]:
        """Return the saved tensors and drop them. Called by the node itself, which runs last."""
        saved, self._saved = self.saved(), None
        return saved


def recomputable_of(
    kind: type[AnyRecomputable], results: Sequence[Tensor]
) -> AnyRecomputable | None:
    """Return the Recomputable of the node whose first results are these tensors.

    Returns None if they come from several nodes, are in another order, were modified in place, or
    if their node has no Recomputable of this kind.
    """
    nodes = {result.grad_fn for result in results}
    is_in_order = [result.output_nr for result in results] == list(range(len(results)))
    recompute = getattr(nodes.pop(), "recompute", None) if len(nodes) == 1 and is_in_order else None
    is_usable = isinstance(recompute, kind) and recompute.is_unmodified(results)
    return recompute if is_usable else None


def _versions(results: Sequence[Tensor]) -> list[int]:
    """Return how often each tensor was modified in place."""
    return [result._version for result in results]
