"""Detection of host crossings: operations on a device that require the host.

Such operations read a value back or copy from memory that is not page-locked. They fail during a
CUDA graph capture. Outside a capture the host waits there for the device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._library.simple_registry import singleton as custom_operations
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.fake_device import NAME, fake_device_mode

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("openfold_opt", "benchmark", "data_prep", "tests")

_READERS = {Tensor.__repr__, Tensor.__format__, Tensor.tolist, Tensor.numpy, Tensor.__array__}
"""Python functions that read all values of a tensor."""

_WAITS = {
    "aten::_linalg_check_errors",
    "aten::_local_scalar_dense",
    "aten::_unique",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
"""Operators that wait for the device, because the host needs their result or its shape."""

_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}

_COPIES_SCALARS = _INDEXING | {"aten::_to_copy", "aten::copy_", "aten::where"}
"""Operators that copy zero-dimensional host tensors. Others pass the value to the kernel."""

_MASKS = (torch.bool, torch.uint8)
"""Dtypes of indices that are masks."""


@dataclass(frozen=True, kw_only=True)
class HostCrossing:
    """An operation on a device that requires the host."""

    what: str
    """The function or operator, and why it requires the host."""
    where: str
    """file:line in this repository, or "backward pass" for operators that autograd runs."""

    def __str__(self) -> str:
        return f"{self.what} at {self.where}"


def find_host_crossings(work: Callable[[], object]) -> list[HostCrossing]:
    """Call work() on the fake device and return its host crossings.

    This must run in a body of FakeDeviceProcess. The list ends at the first crossing that cannot
    continue on a device without values. All other exceptions of work() are raised.
    """
    watch = _Watch()
    try:
        with _FunctionWatch(watch), watch:
            work()
    except Exception as error:
        if error is not watch.stopped_by:
            raise
    return list(dict.fromkeys(watch.crossings))


class _FunctionWatch(TorchFunctionMode):
    """Intercepts Python functions, because operators do not receive Python data."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _READERS and args[0].device.type == NAME:
            self._watch.record(f"{_name_of(function)} of a device tensor")
        if function is Tensor.__setitem__ and _copies_number(*args):
            self._watch.record(f"{_name_of(function)} of a Python number")
        try:
            return function(*args, **kwargs)
        except NotImplementedError as error:
            if f"'{NAME}' backend" in str(error):
                self._watch.stop(f"{_name_of(function)} of Python data", error)
            raise
        except (RuntimeError, TypeError) as error:
            if function in _READERS:
                self._watch.stop(f"{_name_of(function)} of a device tensor", error)
            raise


class _Watch(TorchDispatchMode):
    """Intercepts operators, including those of the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings: list[HostCrossing] = []
        self.stopped_by: Exception | None = None

    def record(self, what: str) -> None:
        """Add a crossing at the innermost stack frame in this repository."""
        self.crossings.append(HostCrossing(what=what, where=_calling_line()))

    def stop(self, what: str, error: Exception) -> None:
        """Add a crossing for which the fake device raises an error."""
        if self.stopped_by is None:
            self.record(what)
        self.stopped_by = error

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace == "prim":
            # These are queries about a tensor, such as its device.
            return function(*args, **kwargs)
        if function.namespace == "openfold":
            # Also watch the code around the kernels of a fused operation.
            launch = custom_operations.find(function._schema.name).fake_impl.kernel
            with self:
                return launch(*args, **kwargs)
        name = function._schema.name
        waits = name in _WAITS and _of_device(args)
        if waits:
            self.record(f"{name} of a device tensor")
        if name in _INDEXING and any(x is not None and x.dtype in _MASKS for x in args[1]):
            self.record(f"{name} with a boolean mask")
            waits = True
        try:
            result = function(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            if waits:
                self.stopped_by = error
            raise
        if _mixes_devices(name, args, kwargs, result):
            self.record(f"{name} between host and device")
        return result


def _name_of(function: Any) -> str:
    return resolve_name(function) or getattr(function, "__name__", str(function))


def _tensors(*values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _of_device(*values: Any) -> bool:
    return any(x.device.type == NAME for x in _tensors(*values))


def _mixes_devices(name: str, args: tuple, kwargs: dict[str, Any], result: Any) -> bool:
    """Return whether an operator copies from or to pageable memory or waits for a copy."""
    tensors = _tensors(args, kwargs, result)
    of_host = [x for x in tensors if x.device.type == "cpu"]
    copied = [x for x in of_host if x.dim() > 0 or name in _COPIES_SCALARS]
    if len(of_host) == len(tensors) or not copied:
        return False
    is_copy = name in ("aten::copy_", "aten::_to_copy")
    is_asynchronous = kwargs.get("non_blocking") or args[2:3] == (True,)
    is_pinned = all(fake_device_mode().has_pinned(x) for x in of_host)
    return not (is_copy and is_asynchronous and is_pinned)


def _copies_number(target: Tensor, index: Any, value: Any) -> bool:
    """Return whether target[index] = value copies a Python number to a CUDA device.

    Assignments to one element or with tensor indices do; larger views are filled by a kernel. The
    fake device does not show this, because PyTorch creates a host tensor for the number only if the
    device is CUDA.
    """
    if isinstance(value, Tensor) or target.device.type != NAME:
        return False
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is None or part is ... or isinstance(part, int | slice) for part in parts):
        return True
    return target[index].dim() == 0


def _calling_line() -> str:
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            parts = path.relative_to(ROOT).parts
            if parts[0] in _SOURCES and path.name not in ("host_crossings.py", "fake_device.py"):
                return f"{'/'.join(parts)}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward pass"
