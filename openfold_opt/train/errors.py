"""Exceptions of the train package that more than one module raises or handles."""

from __future__ import annotations

from collections.abc import Mapping


class SetupError(ValueError):
    """The run cannot start as configured. Every rank raises it."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names it, the reason and the remedy."""


class PhaseConditionError(RuntimeError):
    """A phase of a run did not reach the score that it requires. Every rank raises it."""


class NonFiniteError(RuntimeError):
    """A loss term of non-zero weight, the gradient norm or an evaluation score is not finite.

    step: the optimizer step, counted from 1; None if the code that raises it does not know the
    step. samples: for each training rank with such samples, those whose loss is not finite.
    """

    def __init__(
        self,
        message: str,
        *,
        step: int | None = None,
        samples: Mapping[int, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.samples = dict(samples or {})
