"""Results of operators on device meta, repeated from their shapes.

PyTorch computes the shapes of many results in Python, in up to a millisecond. Blocks of the same
size have results of the same shapes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch._ops import OpOverload

from openfold_opt.kernels.workspace import tensors_in


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What an empty tensor on device meta is made from."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def empty(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


class MetaResults:
    """Layouts of the results of operators that ran on device meta, by those of their arguments."""

    def __init__(self) -> None:
        self._layouts: dict[Hashable, _Layout | tuple[_Layout, ...]] = {}

    def run(self, func: OpOverload, args: tuple, kwargs: dict) -> object:
        """Run an operator, or return new tensors like those that it returned before."""
        if not _returns_new_tensors(func):
            return func(*args, **kwargs)
        key = (func, _key(args), _key(kwargs))
        layouts = self._layouts.get(key)
        if isinstance(layouts, _Layout):
            return layouts.empty()
        if layouts is not None:
            return tuple(layout.empty() for layout in layouts)
        result = func(*args, **kwargs)
        results = (result,) if isinstance(result, Tensor) else result
        if isinstance(results, tuple) and _are_new(results, tensors_in((args, kwargs))):
            found = tuple(_Layout(shape=x.shape, stride=x.stride(), dtype=x.dtype) for x in results)
            self._layouts[key] = found[0] if isinstance(result, Tensor) else found
        return result


@cache
def _returns_new_tensors(func: OpOverload) -> bool:
    """Return whether an operator of PyTorch changes nothing and, by its schema, returns no view."""
    schema = func._schema
    is_view = any(result.alias_info is not None for result in schema.returns)
    return func.namespace == "aten" and not schema.is_mutable and not is_view


def _are_new(results: tuple, inputs: list[Tensor]) -> bool:
    """Return whether all results are tensors on device meta with storages of their own.

    Some operators return views although their schemas do not say so.
    """
    if not all(isinstance(x, Tensor) and x.is_meta for x in results):
        return False
    storages = [x.untyped_storage()._cdata for x in (*results, *inputs)]
    return all(storages.count(storage) == 1 for storage in storages[: len(results)])


def _key(value: object) -> Hashable:
    """Return what the layout of a result depends on. Equal numbers of other types differ."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, tuple | list):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _key(item)) for name, item in value.items())
    return type(value), value
