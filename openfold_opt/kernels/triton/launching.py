"""Shared parts of the launch functions: running or recording a launch, sizes, row addressing."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op
from torch.utils._python_dispatch import TorchDispatchMode
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from openfold_opt.kernels.chips import CHIPS
from openfold_opt.kernels.triton.tuning.tuned_options import Options, tuned

MIN_DOT_SIZE = 16
"""Smallest dim of a matrix product on tensor cores."""
FILLING_PROGRAMS = max(chip.num_sms for chip in CHIPS)
"""Programs of a launch that give work to every multiprocessor of every chip."""

DOES_NOT_FIT = (OutOfResources, PTXASError, CompilationError)
"""Exceptions of a launch whose blocks or options the chip or the compiler does not support."""

Launcher = Callable[[JITFunction, tuple[int, ...], tuple, Options], None]
"""(kernel, grid, arguments, options) -> None"""


def _run(kernel: JITFunction, grid: tuple[int, ...], args: tuple, options: Options) -> None:
    # Tuned options are applied here, so that recorded launches have the default options.
    try:
        kernel[grid](*args, **tuned(kernel, grid, args, options))
    except OutOfResources as error:
        # tuning/shared_memory.py rejects the known cases before a launch; this one is not listed.
        name = f"{kernel.fn.__module__.partition('triton.')[2]}.{kernel.fn.__name__}"
        raise ValueError(
            f"kernel {name}: {error}; this chip cannot run it with {options}; set the operation's "
            'field of KernelConfig to "reference"'
        ) from error


def _skip(kernel: JITFunction, grid: tuple[int, ...], args: tuple, options: Options) -> None:
    """Do nothing, as only the shapes of the results are needed."""


_launcher: ContextVar[Launcher] = ContextVar("launcher", default=_run)
_shape_launcher: ContextVar[Launcher] = ContextVar("shape_launcher", default=_skip)
_shape_mode: ContextVar[TorchDispatchMode | None] = ContextVar("shape_mode", default=None)


def launch(
    kernel: JITFunction,
    grid: tuple[int, ...],
    *args: Tensor | int | float,
    **options: int | float | str | bool,
) -> None:
    """Launch a kernel, unless the grid is empty or only shapes are computed."""
    if all(grid):
        _launcher.get()(kernel, grid, args, options)


@contextmanager
def launches_on_meta(launcher: Launcher):
    """Within the block, pass the launches of operators on meta tensors to `launcher`."""
    token = _shape_launcher.set(launcher)
    try:
        yield
    finally:
        _shape_launcher.reset(token)


@contextmanager
def shapes_within(mode: TorchDispatchMode) -> Iterator[None]:
    """Within the block, compute the shapes of operators' results inside a dispatch mode."""
    token = _shape_mode.set(mode)
    try:
        yield
    finally:
        _shape_mode.reset(token)


def fused_op(launch_function: Callable | None = None, *, mutates: tuple[str, ...] = ()) -> Callable:
    """Register a function that allocates its results and launches kernels as openfold::<name>.

    The function also computes the shapes of the results for meta tensors and torch.compile: it
    runs without launches.

    mutates: names of the arguments that are modified in place.
    """
    if launch_function is None:
        return partial(fused_op, mutates=mutates)
    op = custom_op(f"openfold::{launch_function.__name__}", launch_function, mutates_args=mutates)

    @wraps(launch_function)
    def shapes(*args: object) -> object:
        token = _launcher.set(_shape_launcher.get())
        try:
            with _shape_mode.get() or nullcontext():
                return launch_function(*args)
        finally:
            _launcher.reset(token)

    op.register_fake(shapes)
    return op


@triton.jit
def _probe():
    """Test whether Triton interprets or compiles; never launched."""


IS_INTERPRETED = isinstance(_probe, InterpretedFunction)
"""TRITON_INTERPRET=1 was set before the import of Triton: kernels run in NumPy, also on the CPU."""


def unsupported_reason(
    device: torch.device | str, dtype: torch.dtype = torch.float32
) -> str | None:
    """Return why kernels cannot run on this device and dtype; None if they can."""
    kind = torch.device(device).type
    if kind not in ("cuda", "meta") and not IS_INTERPRETED:
        return f"Triton kernels need a CUDA device, found {kind}"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"Triton kernels take float32, bfloat16 and float16, found {dtype}"
    return None


def dot_precision(dtype: torch.dtype) -> str:
    """Return the precision of matrix products, as set by torch.set_float32_matmul_precision."""
    return (
        "ieee"
        if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
        else "tf32"
    )


def next_power_of_2(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def divide_up(n: int, block: int) -> int:
    """Return the number of blocks that cover n elements."""
    return -(-n // block)


def filling_block(blocks: Iterable[int], programs: Callable[[int], int]) -> int:
    """Return the largest block whose launch gives work to every multiprocessor, else the smallest.

    A chip with idle multiprocessors takes longer than with smaller blocks, which read more.

    blocks: sizes that fit the kernel; programs: number of programs of a launch with a block.
    """
    sizes = sorted(blocks, reverse=True)
    filling = (size for size in sizes if programs(size) >= FILLING_PROGRAMS)
    return next(filling, sizes[-1])


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows [..., c] of a tensor as three dims with strides; permuted tensors are not copied."""

    tensor: Tensor
    sizes: tuple[int, int, int]
    strides: tuple[int, int, int]
    channel_stride: int
    """Stride of the channels: 1, or N * N for [batch, c, N, N] viewed as [batch, N, N, c]."""

    @property
    def count(self) -> int:
        """Return the number of rows."""
        return self.sizes[0] * self.sizes[1] * self.sizes[2]

    @property
    def layout(self) -> tuple[int, ...]:
        """Return the arguments of row_offsets: sizes 1 and 2, and the strides."""
        return (*self.sizes[1:], *self.strides)

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        """Merge the leading dims of x [..., c] if strides allow; copy x if over three remain."""
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
    """Return the element offsets (int64) of rows numbered over sizes [size_0, size_1, size_2]."""
    inner = rows % size_2
    middle = (rows // size_2) % size_1
    outer = rows // (size_2 * size_1)
    return (
        outer.to(tl.int64) * stride_0
        + middle.to(tl.int64) * stride_1
        + inner.to(tl.int64) * stride_2
    )
