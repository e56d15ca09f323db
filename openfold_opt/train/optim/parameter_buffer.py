"""Flat buffers for all parameters of a model and for their gradients.

Reduction, norm, Adam and the weight average are then a few operations on one tensor instead of
thousands on small ones, and flags and metrics can be all-reduced together with the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

ALIGNMENT = 32
"""Every parameter starts at a multiple of this many floats (128 bytes), for vector loads."""

_CHUNK = 2**16
"""Elements that add_low_precision_gradients adds at a time on a CPU."""


class ParameterBuffer:
    """Makes the parameters of a model, in state-dict order, views of one float32 tensor.

    values: [size] float32. gradients: [size + num_extras] float32, where gradients[:size] belongs
    to the parameters and the rest is for extra values that are averaged together with them. The
    gaps between parameters are always zero.

    The parameters named in `low_precision` become bfloat16 in the model: they are views of
    `compute_copy`, a rounded copy of values with the same offsets, and have bfloat16 gradients,
    which `add_low_precision_gradients` adds to the float32 ones. Without such names, compute_copy
    is None.

    Raises ValueError if a parameter is not float32, or if parameters are on different devices.
    """

    def __init__(
        self, model: nn.Module, *, num_extras: int = 0, low_precision: Collection[str] = ()
    ) -> None:
        parameters = dict(model.named_parameters())
        kinds = {(parameter.dtype, parameter.device) for parameter in parameters.values()}
        if len(kinds) != 1 or next(iter(kinds))[0] != torch.float32:
            raise ValueError(
                f"parameters must be float32 and on one device, found {sorted(map(str, kinds))}"
            )
        self.names = tuple(parameters)
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._offsets: dict[str, int] = {}
        size = 0
        for name, parameter in parameters.items():
            self._offsets[name] = size
            size += math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT
        self.size = size
        device = next(iter(kinds))[1]
        self.values = torch.zeros(size, device=device)
        self.gradients = torch.zeros(size + num_extras, device=device)
        self.compute_copy: Tensor | None = None
        self._low_gradients: Tensor | None = None
        if low_precision:
            self.compute_copy = torch.zeros(size, dtype=torch.bfloat16, device=device)
            self._low_gradients = torch.zeros_like(self.compute_copy)
        self._move_parameters(parameters, frozenset(low_precision))

    def _move_parameters(
        self, parameters: dict[str, nn.Parameter], low_precision: frozenset[str]
    ) -> None:
        """Copy the parameters into the buffer and make them views of it."""
        for name, parameter in parameters.items():
            self.view(self.values, name).copy_(parameter.detach())
            values, gradients = self.values, self.gradients
            if name in low_precision:
                assert self.compute_copy is not None and self._low_gradients is not None
                values, gradients = self.compute_copy, self._low_gradients
            # Remove the gradient first: PyTorch requires it to have the dtype of the parameter.
            parameter.grad = None
            parameter.data = self.view(values, name)
            # Autograd accumulates into an existing gradient, here a view of the buffer.
            parameter.grad = self.view(gradients, name)
        self.refresh_compute_copy()

    @torch.no_grad()
    def refresh_compute_copy(self) -> None:
        """Update compute_copy after values were loaded. An optimizer step updates it anyway."""
        if self.compute_copy is not None:
            self.compute_copy.copy_(self.values)

    @torch.no_grad()
    def add_low_precision_gradients(self, part: slice | None = None) -> None:
        """Add the bfloat16 gradients to the float32 ones, and clear the bfloat16 gradients.

        part: slice of the flat tensors; None: all. Call this after a backward pass.
        """
        if self._low_gradients is None:
            return
        start, stop, _ = (part or slice(None)).indices(self.size)
        # In chunks on a CPU, where PyTorch makes a float32 copy of the bfloat16 operand.
        step = self.size if self.gradients.device.type == "cuda" else _CHUNK
        for first in range(start, stop, step):
            chunk = slice(first, min(first + step, stop))
            self.gradients[chunk].add_(self._low_gradients[chunk])
        self._low_gradients[start:stop].zero_()

    def offsets(self, model: nn.Module) -> dict[nn.Parameter, int]:
        """Return the offset of each parameter of the model that this buffer was built for."""
        return {parameter: self._offsets[name] for name, parameter in model.named_parameters()}

    @property
    def num_parameters(self) -> int:
        """Number of elements of all parameters, without the gaps."""
        return sum(shape.numel() for shape in self._shapes.values())

    def zero_gradients(self) -> None:
        """Clear gradients and extra values before the first micro-batch of a step."""
        self.gradients.zero_()
        if self._low_gradients is not None:
            self._low_gradients.zero_()

    def view(self, flat: Tensor, name: str) -> Tensor:
        """Return the view of a flat tensor [>= size] for a parameter, in its shape."""
        start, shape = self._offsets[name], self._shapes[name]
        return flat[start : start + shape.numel()].view(shape)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the views of a flat tensor by parameter name."""
        return {name: self.view(flat, name) for name in self.names}

    def layout(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Return offset in a flat tensor and shape by parameter name."""
        return {name: (self._offsets[name], tuple(self._shapes[name])) for name in self.names}

    @torch.no_grad()
    def copy_in(self, flat: Tensor, name: str, source: Tensor) -> None:
        """Copy a tensor into its view of a flat tensor. Raises ValueError if the shape differs."""
        target = self.view(flat, name)
        if source.shape != target.shape:
            raise ValueError(
                f"{name}: found shape {tuple(source.shape)}, expected {tuple(target.shape)}; "
                "the checkpoint belongs to another model"
            )
        target.copy_(source)

    def load(self, flat: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Fill a flat tensor from tensors by name. Raises ValueError if the names differ."""
        missing, extra = set(self.names) - set(tensors), set(tensors) - set(self.names)
        if missing or extra:
            raise ValueError(
                "tensors do not belong to this model: "
                f"missing {sorted(missing)[:5]} ({len(missing)}), "
                f"extra {sorted(extra)[:5]} ({len(extra)})"
            )
        for name in self.names:
            self.copy_in(flat, name, tensors[name])
