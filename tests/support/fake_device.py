"""A fake accelerator for tests: tensors have shapes, dtypes and a device, but no values.

Unlike "meta", the fake device is distinct from the host for PyTorch. Code that reads a value back
or copies Python data to the device fails there, as it does during a CUDA graph capture.
Operations with Triton kernels run everything except the kernels.

PyTorch has one such device per process and cannot undo its setup, so code runs in its own process:

    def body(device, num_channels):
        return tuple(torch.ones(2, num_channels, device=device).sum(0).shape)

    with FakeDeviceProcess() as process:
        assert process.run(body, 3) == (3,)

A body is a function at the top level of a module. It cannot read values of tensors on the device.
Its arguments and its result are pickled, so it returns shapes, strings or the result of
find_host_crossings, but no tensors.
"""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

from openfold_opt.parallel.axis import AxisGroup

NAME = "npy"
"""Name of the fake device in PyTorch."""

_aten = torch.ops.aten


class FakeDeviceProcess:
    """A process with a fake device that runs bodies one at a time. Its context manager ends it."""

    def __init__(self) -> None:
        # A forked process would inherit the threads of PyTorch and the mode of Triton.
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_process,
        )

    def __enter__(self) -> FakeDeviceProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, body: Callable[..., Any], *args: Any) -> Any:
        """Call body(device, *args) on the fake device; return its result or raise its exception."""
        return self._pool.submit(_run_body, body, args).result()


def fake_axis(name: str, *, size: int) -> AxisGroup:
    """Return an axis for a body, whose other ranks do not exist.

    Its collectives return tensors of the right shapes.

    Raises:
        ValueError: The process already has axes of another size.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if not dist.is_initialized():
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    if dist.get_world_size() != size:
        raise ValueError(
            f"axis {name!r} has size {size}, but this process already has axes of size "
            f"{dist.get_world_size()}; run the body in another FakeDeviceProcess"
        )
    return AxisGroup(name=name, rank=0, size=size, process_group=dist.group.WORLD)


class FakeDeviceMode(FakeTensorMode):
    """PyTorch's fake tensors with support for page-locked host memory and copies of scalars."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        # Holding the tensors prevents reuse of their storage addresses.
        self._pinned: dict[int, Tensor] = {}

    def has_pinned(self, x: Tensor) -> bool:
        """Return whether a host tensor is in page-locked memory."""
        return x.untyped_storage()._cdata in self._pinned

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is _aten.is_pinned.default:
            return self.has_pinned(args[0])
        if function is _aten._pin_memory.default:
            with self:
                return self._pin(torch.empty_like(args[0]))
        if kwargs.pop("pin_memory", None):
            return self._pin(super().__torch_dispatch__(function, types, args, kwargs))
        if function is _aten._to_copy.default and _goes_to_device(args[0], kwargs):
            # PyTorch would copy host tensors with known values, but the device has no memory.
            x, dtype = args[0], kwargs.get("dtype") or args[0].dtype
            with self:
                return torch.empty_strided(
                    x.shape, x.stride(), dtype=dtype, device=kwargs["device"]
                )
        return super().__torch_dispatch__(function, types, args, kwargs)

    def _pin(self, x: Tensor) -> Tensor:
        self._pinned[x.untyped_storage()._cdata] = x
        return x


class _DeviceModule(_DummyBackendModule):
    """The functions that PyTorch calls in torch.npy."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Return dtypes of autocast, which activation checkpointing queries."""
        return [torch.bfloat16, torch.float16]


@functools.cache
def fake_device_mode() -> FakeDeviceMode:
    """Return the mode of this process. Fake tensors of different modes cannot be combined."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_DeviceModule())
    FakeTensor.__deepcopy__ = _deep_copy
    return FakeDeviceMode()


def _deep_copy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Clone a tensor. PyTorch's deep copy of a view copies memory, which fake tensors lack."""
    if id(self) not in memo:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        if self.grad is not None:
            memo[id(self)].grad = _deep_copy(self.grad, memo)
    return memo[id(self)]


def _goes_to_device(x: Tensor, kwargs: dict[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is not None and torch.device(device).type == NAME and x.device.type == "cpu"


def _prepare_process() -> None:
    """Set up the process before it imports the module of a body, which may import Triton."""
    # If the interpreter crashes, its traceback is in the report of the failed test.
    faulthandler.enable()
    # Operations check for Triton's interpreter before they accept a device other than CUDA.
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)


def _run_body(body: Callable[..., Any], args: tuple) -> Any:
    with fake_device_mode():
        return body(torch.device(NAME, 0), *args)
