"""Bytes that an operation allocates, found by running it on PyTorch's device "meta".

There, tensors have shapes but no elements, so that any size takes milliseconds and no memory. The
implementation itself is the formula: it allocates the same tensors on every device.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from openfold_opt.kernels.arguments import (
    Kernel,
    LeastBytes,
    OperationShapes,
    TensorMaker,
    least_bytes,
)

FUSED_NAMESPACE = "openfold"
"""Namespace of our own operators, which launch Triton kernels."""
META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Bytes that an operation allocates in addition to its arguments, results and gradients.

    Each number is the largest sum at one time.
    """

    inference: int
    """In a forward pass without gradient."""
    forward: int
    """In a forward pass with gradient, tensors saved for the backward pass included."""
    backward: int
    """In the backward pass, without tensors that the forward pass saved."""

    @property
    def training(self) -> int:
        """The larger one of both passes of training."""
        return max(self.forward, self.backward)


@cache
def measure_workspace(kernel: Kernel, shapes: OperationShapes, dtype: torch.dtype) -> Workspace:
    """Return the workspace of an implementation; Operation.workspace describes the arguments."""
    arguments = shapes.arguments(TensorMaker(device=META, dtype=dtype))
    run, leaves = arguments.call(kernel), arguments.leaves
    with torch.no_grad():
        inference, _ = _allocated(run, leaves)
    forward, results = _allocated(run, leaves)
    if not leaves:
        return Workspace(inference=inference, forward=forward, backward=0)
    d_results = [torch.empty_like(x) for x in results]
    backward, _ = _allocated(partial(torch.autograd.grad, results, leaves, d_results), ())
    return Workspace(inference=inference, forward=forward, backward=backward)


@cache
def measure_bytes(kernel: Kernel, shapes: OperationShapes, dtype: torch.dtype) -> LeastBytes:
    """Return the bytes of arguments and results; Operation.bytes describes the arguments."""
    arguments = shapes.arguments(TensorMaker(device=META, dtype=dtype))
    with torch.no_grad():
        results = arguments.call(kernel)(*arguments.leaves)
    return least_bytes(arguments, results if isinstance(results, tuple) else (results,))


def _allocated(run: Kernel, leaves: tuple[Tensor, ...]) -> tuple[int, tuple[Tensor, ...]]:
    """Run a function; return the bytes that it allocates in addition to its results, and these."""
    with AllocationCounter() as counter:
        results = run(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    return counter.largest - counter.bytes_of(results), results


class AllocationCounter(TorchDispatchMode):
    """Dispatch mode that follows the bytes of all storages that are created while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        """Largest sum of the bytes of storages that exist at one time."""
        self._current = 0
        self._sizes: dict[int, int] = {}

    def bytes_of(self, tensors: tuple[Tensor, ...]) -> int:
        """Return the bytes of those storages of tensors that were created in this mode."""
        storages = {x.untyped_storage()._cdata for x in tensors}
        return sum(self._sizes.get(storage, 0) for storage in storages)

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        known = {x.untyped_storage()._cdata for x in tensors_in((args, kwargs))}
        if func.namespace == FUSED_NAMESPACE:
            # Import Triton only if its kernels are used.
            from openfold_opt.kernels.triton.launching import shapes_within

            with shapes_within(self):
                result = func(*args, **kwargs)
        else:
            result = self._run(func, args, kwargs)
        for x in tensors_in(result):
            storage = x.untyped_storage()
            if storage._cdata not in known and storage._cdata not in self._sizes:
                self._add(storage)
        return result

    def _run(self, func: OpOverload, args: tuple, kwargs: dict) -> object:
        """Run an operator of PyTorch."""
        return func(*args, **kwargs)

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._sizes[address] = size
        self._current += size
        self.largest = max(self.largest, self._current)
        weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        self._current -= self._sizes.pop(address)


def tensors_in(tree: object) -> list[Tensor]:
    """Return the tensors among arguments or results of an operator."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, tuple | list):
        return []
    return [x for item in tree for x in tensors_in(item)]
