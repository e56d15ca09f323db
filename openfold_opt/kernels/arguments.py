"""Arguments of an operation made from its shapes, for counting, measurements and tests.

The reference file of an operation defines its arguments, and next to them a dataclass of their
shapes, whose method `arguments` makes them. On device meta this takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from openfold_opt.kernels.interface import NormWeights

EPS = 1e-5
"""Added to the variances of normalizations."""
_DROPOUT_RATE = 0.25

Kernel = Callable
"""An implementation of an operation; KernelSet has the signatures."""


class OperationShapes(Protocol):
    """Shapes of the arguments of an operation. Every implementation is a frozen dataclass."""

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arguments:
    """Arguments of an operation, bound so that a kernel becomes a function of the leaves."""

    leaves: tuple[Tensor, ...] = ()
    """Inputs that require gradients: leaves of the autograd graph."""
    others: tuple[Tensor, ...] = ()
    """Inputs without gradients."""
    updated: tuple[Tensor, ...] = ()
    """Tensors that the operation modifies in place."""
    call: Callable[[Kernel], Kernel]
    """call(kernel) is a function of the leaves; it passes the other inputs."""


@dataclass(frozen=True, kw_only=True)
class LeastBytes:
    """Bytes that any implementation has to move between the processor and its memory.

    The forward pass reads the inputs and writes the results. The backward pass reads the inputs and
    the gradients of the results, and writes the gradients of the leaves.
    """

    forward: int
    both: int
    """Forward and backward; equal to `forward` if no input requires a gradient."""


def least_bytes(arguments: Arguments, results: Iterable[Tensor]) -> LeastBytes:
    """Return the bytes of arguments and results, each read or written once."""
    leaves, others, updated, out = (
        sum(x.nbytes for x in tensors)
        for tensors in (arguments.leaves, arguments.others, arguments.updated, results)
    )
    forward = leaves + others + updated + out
    backward = 2 * leaves + others + out if arguments.leaves else 0
    return LeastBytes(forward=forward, both=forward + backward)


class TensorMaker:
    """Makes random arguments on a device, always the same for the same order of calls.

    dtype: of the activations and of the weights of linear layers. Masks, weights of normalizations
        and what follows from coordinates are float32, as in the model.
    """

    def __init__(self, *, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        # Device meta has no generators; one of the CPU is accepted there.
        generator_device = "cpu" if device.type == "meta" else device
        self._generator = torch.Generator(device=generator_device).manual_seed(0)

    def leaf(self, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0) -> Tensor:
        """Return normal numbers that require a gradient, in the maker's dtype by default."""
        x = torch.randn(*shape, generator=self._generator, device=self.device) * scale
        return x.to(self.dtype if dtype is None else dtype).requires_grad_()

    def linear(self, c_in: int, c_out: int) -> tuple[Tensor, Tensor]:
        """Return weight [c_out, c_in] and bias [c_out] of a linear layer."""
        return self.leaf(c_out, c_in, scale=c_in**-0.5), self.leaf(c_out)

    def norm(self, c: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias [c] of a normalization; norm_weights completes them."""
        return self.leaf(c, dtype=torch.float32), self.leaf(c, dtype=torch.float32)

    def full(self, *shape: int, value: float = 1.0) -> Tensor:
        """Return equal float32 numbers without gradient; ones are a mask of valid elements."""
        return torch.full(shape, value, device=self.device)

    def dropout(self, *shape: int) -> Tensor:
        """Return a dropout mask: 0, or 1 / (1 - rate)."""
        x = torch.rand(*shape, generator=self._generator, device=self.device)
        return (x > _DROPOUT_RATE).float() / (1.0 - _DROPOUT_RATE)


def norm_weights(weight: Tensor, bias: Tensor) -> NormWeights:
    """Return the parameters of a normalization with the usual epsilon."""
    return NormWeights(weight, bias, EPS)
