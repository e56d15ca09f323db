"""What the launchers of the kernels share: how a launch is carried out or merely recorded, sizes, row addressing."""

from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError
from triton.runtime.interpreter import InterpretedFunction

from openfold_opt.kernels.triton.tuning.tables import tuned

DOES_NOT_FIT = (OutOfResources, PTXASError, CompilationError)
"""What a launch raises whose blocks or options the chip or the compiler cannot take."""

Launcher = Callable[[Any, tuple[int, ...], tuple, dict[str, Any]], None]
"""(kernel, grid, arguments, options) -> nothing"""


def _run(kernel: Any, grid: tuple[int, ...], args: tuple, options: dict[str, Any]) -> None:
    # here, so that whoever records launches sees the options that the kernels were written with
    try:
        kernel[grid](*args, **tuned(kernel, args, options))
    except OutOfResources as error:
        # tuning/shared_memory.py refuses what is known not to fit; this is a case it does not list.
        name = f"{kernel.fn.__module__.partition('triton.')[2]}.{kernel.fn.__name__}"
        raise ValueError(
            f"kernel {name}: {error}; this chip cannot run it with {options}; set the operation's "
            'field of KernelConfig to "reference"'
        ) from error


def _skip(kernel: Any, grid: tuple[int, ...], args: tuple, options: dict[str, Any]) -> None:
    """Shapes are all that is asked for."""


_launcher: ContextVar[Launcher] = ContextVar("launcher", default=_run)
_shape_launcher: ContextVar[Launcher] = ContextVar("shape_launcher", default=_skip)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Starts a kernel, unless its operator only works out shapes, or there is nothing to do."""
    if all(grid):
        _launcher.get()(kernel, grid, args, options)


@contextmanager
def launches_on_meta(launcher: Launcher):
    """Within it, operators on meta tensors hand their launches to `launcher`, which may compile or count them."""
    token = _shape_launcher.set(launcher)
    try:
        yield
    finally:
        _shape_launcher.reset(token)


def fused_op(launch_function: Callable | None = None, *, mutates: tuple[str, ...] = ()) -> Callable:
    """Makes an operator openfold::<name> of a function that allocates its results and launches kernels.

    The same function tells the shapes of the results (meta tensors, torch.compile): it is run with launches left out.
    mutates: names of the arguments that are written to.
    """
    if launch_function is None:
        return partial(fused_op, mutates=mutates)
    op = custom_op(f"openfold::{launch_function.__name__}", launch_function, mutates_args=mutates)

    @wraps(launch_function)
    def shapes(*args: Any) -> Any:
        token = _launcher.set(_shape_launcher.get())
        try:
            return launch_function(*args)
        finally:
            _launcher.reset(token)

    op.register_fake(shapes)
    return op


@triton.jit
def _probe():
    """Never launched: tells whether Triton interprets or compiles."""


IS_INTERPRETED = isinstance(_probe, InterpretedFunction)
"""TRITON_INTERPRET=1 was set before Triton was imported: kernels run in numpy, also on CPU tensors."""


def unsupported_reason(
    device: torch.device | str, dtype: torch.dtype = torch.float32
) -> str | None:
    """Why no kernel can run on tensors of this device and dtype; None if they can."""
    kind = torch.device(device).type
    if kind not in ("cuda", "meta") and not IS_INTERPRETED:
        return f"Triton kernels need a CUDA device, found {kind}"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"Triton kernels take float32, bfloat16 and float16, found {dtype}"
    return None


def dot_precision(dtype: torch.dtype) -> str:
    """How matrix products of float32 are carried out: as torch.set_float32_matmul_precision says."""
    return (
        "ieee"
        if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
        else "tf32"
    )


def next_power_of_2(n: int) -> int:
    """Smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def divide_up(n: int, block: int) -> int:
    """Blocks that cover n."""
    return -(-n // block)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows [..., c] of a tensor as a grid of three sizes, each with a stride of its own: no copy for permuted tensors."""

    tensor: Tensor
    sizes: tuple[int, int, int]
    strides: tuple[int, int, int]
    channel_stride: int
    """1, or the distance of channels that lie in front: [batch, c, N, N] seen as [batch, N, N, c]."""

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.sizes[0] * self.sizes[1] * self.sizes[2]

    @property
    def place(self) -> tuple[int, ...]:
        """What `row_offsets` needs: sizes 1 and 2, the strides."""
        return (*self.sizes[1:], *self.strides)

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        """Merges the leading dims of x [..., c] where their strides allow it; copies x if more than three are left."""
        dims: list[tuple[int, int]] = []
        for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
            if size == 1:
                continue
            if dims and dims[-1][1] == size * stride:
                dims[-1] = (dims[-1][0] * size, stride)
            else:
                dims.append((size, stride))
        if len(dims) > 3:
            return cls.of(x.contiguous())
        dims = [(1, 0)] * (3 - len(dims)) + dims
        return cls(
            tensor=x,
            sizes=tuple(d[0] for d in dims),
            strides=tuple(d[1] for d in dims),
            channel_stride=x.stride(-1),
        )


@triton.jit
def row_offsets(rows, size_1, size_2, stride_0, stride_1, stride_2):
    """Element offsets (int64) of rows counted over the sizes [size_0, size_1, size_2] of `Rows`."""
    inner = rows % size_2
    middle = (rows // size_2) % size_1
    outer = rows // (size_2 * size_1)
    return (
        outer.to(tl.int64) * stride_0
        + middle.to(tl.int64) * stride_1
        + inner.to(tl.int64) * stride_2
    )
