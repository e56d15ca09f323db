"""Compilation of kernels for a GPU that need not be present, and the resources they need."""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from openfold_opt.kernels.chips import shared_bytes_of
from openfold_opt.kernels.triton.allocating import only_shared_memory
from openfold_opt.kernels.triton.tuning.tuned_options import Options

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

_SASS = {
    "spills": "STL|LDL",
    "wgmma": "HGMMA|UTCHMMA",
    "mma": "HMMA",
    "fma": "FFMA2?",
}
"""Field of Resources -> names of its instructions."""

Launch = tuple[JITFunction, tuple[int, ...], tuple, Options]
"""Kernel, grid, arguments (meta tensors and numbers) and options, as in launches_on_meta."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resources of a compiled kernel."""

    kernel: str
    """File and function."""
    signature: str
    """Types of the tensors, and compile-time constants."""
    shared_bytes: int
    registers: int | None = None
    """Per thread. This and all below are None if only shared memory was allocated."""
    stack_bytes: int | None = None
    """Per thread, spilled registers included."""
    spills: int | None = None
    """Instructions that store to or load from local memory."""
    wgmma: int | None = None
    """Matrix instructions of a warpgroup (SASS: HGMMA), or of sm_100 (UTCHMMA)."""
    mma: int | None = None
    """Matrix instructions of a warp (SASS: HMMA)."""
    fma: int | None = None
    """Multiply-add instructions of the CUDA cores (SASS: FFMA)."""


def kernel_name(kernel: JITFunction) -> str:
    """Return the file and function of a kernel, such as layer_norm._forward_kernel."""
    return f"{kernel.fn.__module__.partition('triton.')[2]}.{kernel.fn.__name__}"


def signature_of(args: tuple, options: Options) -> str:
    """Return the types of the tensors, and the compile-time constants, of a launch."""
    dtypes = [
        str(arg.dtype).removeprefix("torch.") for arg in args if isinstance(arg, torch.Tensor)
    ]
    constants = [f"{name}={value}" for name, value in options.items()]
    return " ".join([",".join(dict.fromkeys(dtypes)), *constants])


def distinct_launches(launches: Iterable[Launch], *, every_alignment: bool = True) -> list[Launch]:
    """Return one launch of each kind that a kernel is compiled for.

    every_alignment: distinguish variants that differ only in which integers are 1 or divisible by
        16. They have the same blocks, so their resources differ little.
    """
    distinct: dict[tuple, Launch] = {}
    for kernel, grid, args, options in launches:
        kinds = map(_specialization if every_alignment else _dtype_of, args)
        key = (kernel.fn.__module__, kernel.fn.__name__, *kinds, *sorted(options.items()))
        distinct.setdefault(key, (kernel, grid, args, options))
    return list(distinct.values())


def _dtype_of(argument: object) -> object:
    return argument.dtype if isinstance(argument, torch.Tensor) else type(argument)


def _specialization(argument: object) -> object:
    """Return the property of an argument that Triton specializes a kernel for.

    This is the dtype of a tensor, and of an integer whether it is 1, divisible by 16, or 64-bit.
    """
    if isinstance(argument, torch.Tensor):
        return argument.dtype
    if isinstance(argument, int):
        return (argument == 1, argument % 16 == 0, argument.bit_length() > 31)
    return type(argument)


def compile_launches(
    launches: Iterable[Launch], capability: int, *, only_memory: bool = False
) -> list[Resources]:
    """Compile each launch for a chip. Afterward this process compiles for that chip.

    only_memory: compile only up to the allocation of shared memory, which is much faster.

    Raises:
        ValueError: the capability is unknown, or kernels need more shared memory than the chip has.
    """
    limit = shared_bytes_of(capability)
    if limit is None:
        raise ValueError(f"sm_{capability}: unknown chip; add it to openfold_opt/kernels/chips.py")
    compiled: dict[str, Resources] = {}
    triton.runtime.driver.set_active(_Target(capability))
    with only_shared_memory() if only_memory else nullcontext():
        for kernel, grid, args, options in launches:
            binary = kernel.warmup(*args, grid=grid, **options)
            if binary.hash not in compiled:
                compiled[binary.hash] = _read(kernel, args, options, binary, only_memory)
    too_large = [
        f"{kernel.kernel} ({kernel.signature}) needs {kernel.shared_bytes} bytes"
        for kernel in compiled.values()
        if kernel.shared_bytes > limit
    ]
    if too_large:
        raise ValueError(
            f"sm_{capability} has {limit} bytes of shared memory for a thread block, but "
            f"{'; '.join(too_large)}; use smaller blocks for this dtype"
        )
    return sorted(compiled.values(), key=lambda kernel: (kernel.kernel, kernel.signature))


def _read(
    kernel: JITFunction, args: tuple, options: Options, binary: CompiledKernel, only_memory: bool
) -> Resources:
    return Resources(
        kernel=kernel_name(kernel),
        signature=signature_of(args, options),
        shared_bytes=int(binary.metadata.shared),
        **({} if only_memory else _machine_code(binary)),
    )


def _machine_code(binary: CompiledKernel) -> dict[str, int]:
    """Return registers, stack, spills and kinds of instructions of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        numbers = dict(re.findall(r"(REG|STACK):(\d+)", usage))
        assembly = _tool("nvdisasm", file.name)
    counts = {name: len(re.findall(rf"\b(?:{kind})\b", assembly)) for name, kind in _SASS.items()}
    return {"registers": int(numbers["REG"]), "stack_bytes": int(numbers["STACK"]), **counts}


def _tool(name: str, *args: str) -> str:
    return subprocess.run(
        [str(_TOOLS / name), *args], capture_output=True, text=True, check=True
    ).stdout


class _Target:
    """Triton driver that reports a chip and cannot run anything."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        # Triton caches compiled kernels by device number, so each capability has one.
        return self._target.arch

    def get_current_stream(self, device: int | None = None) -> int:
        return 0
