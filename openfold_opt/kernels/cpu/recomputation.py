"""The way back from results to what they were made of: whoever needs them in the backward pass need not keep them until then.

A node of autograd that can make its results again carries an attribute `recompute`. Who takes the results in asks for it, keeps nothing, and makes
them again in its backward pass, which comes before the node's own.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor
from torch.autograd.function import FunctionCtx

AnyRecomputable = TypeVar("AnyRecomputable", bound="Recomputable")


class Recomputable:
    """What a node keeps, for others too."""

    def __init__(self, node: FunctionCtx, results: Sequence[Tensor]) -> None:
        """results: what the node is about to return."""
        self._node = weakref.ref(node)
        self._versions = _versions(results)
        self._kept: tuple[Tensor, ...] | None = None

    def kept(self) -> tuple[Tensor, ...]:
        """The tensors that the node has saved."""
        # once for all: under recomputation, saved tensors can be unpacked only once
        if self._kept is None:
            self._kept = self._node().saved_tensors
        return self._kept

    def is_of(self, results: Sequence[Tensor]) -> bool:
        """Whether nothing was written over the first results since the node returned them."""
        return _versions(results) == self._versions[: len(results)]

    def release(self) -> tuple[Tensor, ...]:
        """The same, for the node itself, which comes last."""
        kept, self._kept = self.kept(), None
        return kept


def recomputable_of(
    kind: type[AnyRecomputable], results: Sequence[Tensor]
) -> AnyRecomputable | None:
    """None if these tensors, or what autograd knows of them, are not the first results of one such node as they are."""
    nodes = {result.grad_fn for result in results}
    is_in_order = [result.output_nr for result in results] == list(range(len(results)))
    recompute = getattr(nodes.pop(), "recompute", None) if len(nodes) == 1 and is_in_order else None
    return recompute if isinstance(recompute, kind) and recompute.is_of(results) else None


def _versions(results: Sequence[Tensor]) -> list[int]:
    """Counts of what was written to each in place."""
    return [result._version for result in results]
