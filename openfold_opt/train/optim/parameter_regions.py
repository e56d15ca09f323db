"""Order of the parameters in the flat buffer: those of layers that are applied together are joined.

The weights [c_out, c_in] of several layers, one after another in memory, are the weight of one
layer with all outputs; so are their biases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openfold_opt.model.linear import JoinedLinears, joined_linears


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Memory of one parameter, or of the joined weights or biases of several layers."""

    shape: torch.Size
    """Shape of the parameter, or of the joined parameters."""
    offsets: dict[str, int]
    """Name of each parameter -> offset of its first element."""
    used: tuple[tuple[int, int], ...]
    """Ranges of the elements that belong to parameters. The others are the biases of layers without
    bias: they are zero, and their gradients are not used."""
    share: Callable[[Tensor], None] | None = None
    """Lets the layers use a tensor as their joined parameters; None for a single parameter."""


def regions_of(model: nn.Module) -> Iterator[Region]:
    """Return the regions of all parameters in state-dict order, joined ones at their first one."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = {linear.weight: group for group in joined_linears(model) for linear in group.linears}
    done: set[nn.Parameter] = set()
    for parameter, name in names.items():
        if parameter in done:
            continue
        if parameter in groups:
            yield from _joined_regions(groups[parameter], names)
            done.update(x for linear in groups[parameter].linears for x in linear.parameters())
        else:
            yield Region(shape=parameter.shape, offsets={name: 0}, used=((0, parameter.numel()),))


def _joined_regions(group: JoinedLinears, names: dict[nn.Parameter, str]) -> Iterator[Region]:
    """Return the region of the weights of a group, and that of its biases if there are any."""
    linears = group.linears
    lengths = [linear.weight.numel() for linear in linears]
    total, c_in = sum(linear.weight.shape[0] for linear in linears), linears[0].weight.shape[1]
    yield Region(
        shape=torch.Size([total, c_in]),
        offsets=dict(zip((names[linear.weight] for linear in linears), _starts(lengths))),
        used=((0, total * c_in),),
        share=group.share_weight,
    )
    lengths = [linear.weight.shape[0] for linear in linears]
    biases = [
        (linear.bias, start, start + length)
        for linear, start, length in zip(linears, _starts(lengths), lengths)
        if linear.bias is not None
    ]
    if biases:
        yield Region(
            shape=torch.Size([total]),
            offsets={names[bias]: start for bias, start, _ in biases},
            used=tuple((start, stop) for _, start, stop in biases),
            share=group.share_bias,
        )


def _starts(lengths: list[int]) -> list[int]:
    """Return the offsets of parts with these lengths, one after another."""
    return [sum(lengths[:index]) for index in range(len(lengths))]
