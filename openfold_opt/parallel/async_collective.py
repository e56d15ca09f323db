"""Collectives that are started at one place of the forward pass and waited for at another (FastFold's Duality Async Operation).

What is computed between the two runs at the same time as the transfer. In the backward pass the two places change their roles: where
the result was waited for, the transfer of its gradient starts, and where the transfer was started, that gradient is waited for.
Autograd goes through the operations in the opposite order, so that the same work lies between them again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from openfold_opt.parallel.transfers import PendingWork, Transfer


class AsyncCollective:
    """A tensor on its way. `arrive` is called once."""

    def __init__(self, x: Tensor, transfer: Transfer | None, *, what: str) -> None:
        """transfer: None where x goes nowhere, as on an axis of size 1: it arrives as it is. what: name of x in traces."""
        self._what = what
        self._transfer = transfer
        self._adjoint = None if transfer is None else transfer.adjoint(x.shape)
        self._pending: PendingWork | None = None
        # autograd sees an empty tensor go from departure to arrival; the values travel beside it, in buffers of other shapes
        self._token = x if transfer is None else _Start.apply(x, self)

    def wait(self) -> Tensor:
        """Wait for the result."""
        if self._transfer is None:
            return self._token
        # the token leads to this object by way of autograd: kept here it would be a circle, which no reference count ends
        token, self._token = self._token, None
        return _Wait.apply(token, self)

    def _launch(self, transfer: Transfer, x: Tensor) -> None:
        axis = transfer.axis
        if axis.on_launch is not None:
            axis.on_launch(self._what, transfer.name, transfer.sent_bytes(x))
        with torch.profiler.record_function(f"{axis.name}: start {transfer.name} of {self._what}"):
            self._pending = transfer.launch(x)

    def _finish(self) -> Tensor:
        launched, self._pending = self._pending, None
        with torch.profiler.record_function(f"{self._transfer.axis.name}: wait for {self._what}"):
            return launched.wait()


class SharedResult:
    """What a flight brings, for several who ask: the first of them waits."""

    def __init__(
        self, collective: AsyncCollective, finish: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """finish: what is done with it on arrival, once."""
        self._collective: AsyncCollective | None = collective
        self._finish = finish
        self._result: Tensor | None = None

    def __call__(self) -> Tensor:
        """The result."""
        if self._collective is not None:
            # on an axis of size 1 a flight holds its tensor: it is let go, so that only what was made of it is kept
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
