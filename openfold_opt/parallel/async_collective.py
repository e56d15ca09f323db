"""Asynchronous collectives for model code (FastFold's Duality Async Operation).

A collective is started at one point of the forward pass and waited for at a later one, so that it
overlaps with the computation in between. In the backward pass the roles are swapped: the forward
wait starts the transfer of the gradient, and the forward start waits for it. Autograd runs the
operations in reverse order, so the same computation overlaps with that transfer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openfold_opt.parallel.transfers import PendingWork, Transfer


class AsyncCollective:
    """A collective on one tensor that is in flight. Call `wait` exactly once."""

    def __init__(self, x: Tensor, transfer: Transfer | None, *, what: str) -> None:
        """Start the transfer of x.

        Args:
            x: input of the transfer on this rank.
            transfer: the collective; None returns x unchanged, as on an axis of size 1.
            what: name of x in traces.
        """
        self._what = what
        self._transfer = transfer
        self._adjoint = None if transfer is None else transfer.adjoint(x.shape)
        self._pending: PendingWork | None = None
        # Autograd connects start and wait by an empty tensor. The values are kept in separate
        # buffers, because input and output have different shapes.
        self._token = x if transfer is None else _Start.apply(x, self)

    def wait(self) -> Tensor:
        """Wait for the collective and return its result."""
        if self._transfer is None:
            return self._token
        # The token refers to this object through autograd. Keeping it would create a reference
        # cycle, which reference counting cannot free.
        token, self._token = self._token, None
        return _Wait.apply(token, self)

    def _launch(self, transfer: Transfer, x: Tensor) -> None:
        axis = transfer.axis
        if axis.on_launch is not None:
            axis.on_launch(self._what, transfer.name, transfer.sent_bytes(x))
        with torch.profiler.record_function(f"{axis.name}: start {transfer.name} of {self._what}"):
            self._pending = transfer.launch(x)

    def _finish(self) -> Tensor:
        pending, self._pending = self._pending, None
        with torch.profiler.record_function(f"{self._transfer.axis.name}: wait for {self._what}"):
            return pending.wait()


class SharedResult:
    """The result of an AsyncCollective for several consumers. The first call waits for it."""

    def __init__(
        self, collective: AsyncCollective, finish: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Wrap a collective.

        Args:
            collective: the collective in flight.
            finish: applied once to the received tensor; None returns it unchanged.
        """
        self._collective: AsyncCollective | None = collective
        self._finish = finish
        self._result: Tensor | None = None

    def __call__(self) -> Tensor:
        """Return the result; the first call waits for the collective."""
        if self._collective is not None:
            # On an axis of size 1 the collective holds its input. Drop it, so that only the
            # finished result stays in memory.
            collective, self._collective = self._collective, None
            received = collective.wait()
            self._result = received if self._finish is None else self._finish(received)
        return self._result


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, collective: AsyncCollective) -> Tensor:
        ctx.collective = collective
        collective._launch(collective._transfer, x)
        return x.new_empty(0)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.collective._finish(), None


class _Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx, token: Tensor, collective: AsyncCollective) -> Tensor:
        ctx.collective = collective
        return collective._finish()

    @staticmethod
    def backward(ctx, grad: Tensor):
        ctx.collective._launch(ctx.collective._adjoint, grad)
        return grad.new_empty(0), None
