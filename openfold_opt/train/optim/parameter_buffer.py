"""Flat buffers for all parameters of a model and for their gradients.

Reduction, norm, Adam and the weight average are then a few operations on one tensor instead of
thousands on small ones, and flags and metrics can be all-reduced together with the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openfold_opt.train.optim.parameter_regions import Region, regions_of

ALIGNMENT = 32
"""Every parameter starts at a multiple of this many floats (128 bytes), for vector loads."""

_CHUNK = 2**16
"""Elements of the bfloat16 gradients that are added at a time on a CPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Leaf:
    """A tensor that gets a gradient: a parameter, or the joined parameters of several layers."""

    tensor: Tensor
    start: int
    """Offset of its first element in the flat tensors."""
    used: tuple[tuple[int, int], ...]
    """Ranges of its elements that belong to parameters."""
    slots: tuple[Tensor, ...]
    """Views of the flat gradients in its dtype, one for each range."""

    def take_gradient(self) -> list[Tensor]:
        """Return the gradient in the form of the slots, and remove it from the tensor."""
        assert self.tensor.grad is not None
        flat = self.tensor.grad.view(-1)
        self.tensor.grad = None
        return [flat[first:last] for first, last in self.used]


class ParameterBuffer:
    """Makes the parameters of a model views of one float32 tensor.

    values: [size] float32. gradients: [size + num_extras] float32, where gradients[:size] belongs
    to the parameters and the rest is for extra values that are averaged together with them. The
    gaps between parameters are always zero. Parameters are in state-dict order, except that those
    of layers that are applied together (JoinedLinears) follow each other. Their joined weight and
    bias are then views, too: a step concatenates nothing, and each of the two gets one gradient.

    Autograd leaves the gradients of a backward pass in separate tensors, without copying or adding
    them. `collect_gradients` adds all of them to the flat gradients with a few operations.

    The parameters named in `low_precision` become bfloat16 in the model: they are views of
    `compute_copy`, a rounded copy of values with the same offsets, and have bfloat16 gradients.
    Without such names, compute_copy is None.

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
        regions: dict[int, Region] = {}
        size = 0
        for region in regions_of(model):
            regions[size] = region
            self._offsets |= {name: size + first for name, first in region.offsets.items()}
            size += math.ceil(region.shape.numel() / ALIGNMENT) * ALIGNMENT
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
        self._leaves = [
            self._build_leaf(region, start, parameters) for start, region in regions.items()
        ]

    def _move_parameters(
        self, parameters: dict[str, nn.Parameter], low_precision: frozenset[str]
    ) -> None:
        """Copy the parameters into the buffer and make them views of it."""
        for name, parameter in parameters.items():
            self.view(self.values, name).copy_(parameter.detach())
            # Remove the gradient first: PyTorch requires it to have the dtype of the parameter.
            parameter.grad = None
            if name in low_precision:
                assert self.compute_copy is not None
                parameter.data = self.view(self.compute_copy, name)
            else:
                parameter.data = self.view(self.values, name)
        self.refresh_compute_copy()

    def _build_leaf(self, region: Region, start: int, parameters: dict[str, nn.Parameter]) -> _Leaf:
        """Return the tensor of a region that gets a gradient, and let its layers use it."""
        tensor: Tensor = parameters[next(iter(region.offsets))]
        is_low = tensor.dtype == torch.bfloat16
        if region.share is not None:
            flat = self.compute_copy if is_low else self.values
            assert flat is not None
            joined = flat[start : start + region.shape.numel()].view(region.shape)
            tensor = joined.detach().requires_grad_()
            region.share(tensor)
        gradients = self._low_gradients if is_low else self.gradients
        assert gradients is not None
        return _Leaf(
            tensor=tensor,
            start=start,
            used=region.used,
            slots=tuple(gradients[start + first : start + last] for first, last in region.used),
        )

    @torch.no_grad()
    def refresh_compute_copy(self) -> None:
        """Update compute_copy after values were loaded. An optimizer step updates it anyway."""
        if self.compute_copy is not None:
            self.compute_copy.copy_(self.values)

    @torch.no_grad()
    def collect_gradients(self, part: slice | None = None) -> None:
        """Add the gradients of a backward pass to the flat ones, and remove them from the leaves.

        part: slice of the flat tensors; None: all. Call this after a backward pass.
        """
        start, stop, _ = (part or slice(None)).indices(self.size)
        slots: dict[torch.dtype, list[Tensor]] = {torch.float32: [], torch.bfloat16: []}
        found: dict[torch.dtype, list[Tensor]] = {torch.float32: [], torch.bfloat16: []}
        for leaf in self._leaves:
            if start <= leaf.start < stop and leaf.tensor.grad is not None:
                slots[leaf.tensor.dtype] += leaf.slots
                found[leaf.tensor.dtype] += leaf.take_gradient()
        if found[torch.float32]:
            torch._foreach_add_(slots[torch.float32], found[torch.float32])
        if found[torch.bfloat16]:
            torch._foreach_copy_(slots[torch.bfloat16], found[torch.bfloat16])
            self._add_low_gradients(start, stop)

    def _add_low_gradients(self, start: int, stop: int) -> None:
        """Add a range of the bfloat16 gradients to the float32 ones, and clear it."""
        assert self._low_gradients is not None
        # In chunks on a CPU, where PyTorch makes a float32 copy of the bfloat16 operand.
        step = _CHUNK if self.gradients.device.type == "cpu" else self.size
        for first in range(start, stop, step):
            chunk = slice(first, min(first + step, stop))
            self.gradients[chunk].add_(self._low_gradients[chunk])
        self._low_gradients[start:stop].zero_()

    @property
    def leaves(self) -> dict[Tensor, int]:
        """Return the tensors that get a gradient, with their offsets in the flat tensors."""
        return {leaf.tensor: leaf.start for leaf in self._leaves}

    @property
    def num_parameters(self) -> int:
        """Number of elements of all parameters, without the gaps."""
        return sum(shape.numel() for shape in self._shapes.values())

    def zero_gradients(self) -> None:
        """Clear gradients and extra values before the first micro-batch of a step."""
        self.gradients.zero_()
        for leaf in self._leaves:
            leaf.tensor.grad = None

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
