"""Compiling kernels for a GPU that need not be there, and reading what the compiler gave them."""

import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget

CAPABILITIES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Compute capability -> shared memory that one program may have, bytes (CUDA programming guide, table of technical specifications)."""
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

Launch = tuple[Any, tuple[int, ...], tuple, dict[str, Any]]
"""Kernel, grid, arguments (meta tensors and numbers), options: what `launches_on_meta` is told."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """One compiled kernel."""

    kernel: str
    """File and function."""
    signature: str
    """Types of the tensors, and compile-time constants."""
    registers: int
    """Per thread."""
    shared_bytes: int
    stack_bytes: int
    """Per thread, spilled registers included."""
    spills: int
    """Instructions that store to or load from local memory."""


def distinct_launches(launches: Iterable[Launch]) -> list[Launch]:
    """One launch of each kind that a kernel is compiled for."""
    found: dict[tuple, Launch] = {}
    for kernel, grid, args, options in launches:
        key = (kernel.fn.__module__, kernel.fn.__name__, *map(_specialisation, args), *sorted(options.items()))
        found.setdefault(key, (kernel, grid, args, options))
    return list(found.values())


def _specialisation(argument: Any) -> Any:
    """What Triton compiles a kernel anew for: dtypes, and integers that are 1 or divisible by 16."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype
    if isinstance(argument, int):
        return (argument == 1, argument % 16 == 0, argument.bit_length() > 31)
    return type(argument)


def compile_launches(launches: Iterable[Launch], capability: int) -> list[Resources]:
    """Every kernel in every specialisation that the launches ask for. From then on this process compiles for that chip.

    Raises:
        ValueError: a kernel wants more shared memory than the chip has.
    """
    compiled: dict[str, Resources] = {}
    triton.runtime.driver.set_active(_Target(capability))
    for kernel, grid, args, options in tqdm(distinct_launches(launches), desc=f"compile for sm_{capability}", unit="kernel"):
        binary = kernel.warmup(*args, grid=grid, **options)
        if binary.hash not in compiled:
            compiled[binary.hash] = _read(kernel, args, options, binary)
    for found in compiled.values():
        if found.shared_bytes > CAPABILITIES[capability]:
            raise ValueError(
                f"{found.kernel} ({found.signature}) wants {found.shared_bytes} bytes of shared memory, sm_{capability} has "
                f"{CAPABILITIES[capability]}; give it smaller blocks"
            )
    return sorted(compiled.values(), key=lambda found: (found.kernel, found.signature))


def _read(kernel: Any, args: tuple, options: dict[str, Any], binary: Any) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        assembly = _tool("nvdisasm", file.name)
    numbers = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", usage))
    dtypes = [str(arg.dtype).removeprefix("torch.") for arg in args if isinstance(arg, torch.Tensor)]
    constants = [f"{name}={value}" for name, value in options.items()]
    return Resources(
        kernel=f"{kernel.fn.__module__.partition('triton.')[2]}.{kernel.fn.__name__}",
        signature=" ".join([dtypes[0] if len(set(dtypes)) == 1 else ",".join(dict.fromkeys(dtypes)), *constants]),
        registers=int(numbers["REG"]),
        shared_bytes=int(binary.metadata.shared),
        stack_bytes=int(numbers["STACK"]),
        spills=len(re.findall(r"\b(?:STL|LDL)\b", assembly)),
    )


def _tool(name: str, *args: str) -> str:
    return subprocess.run([str(_TOOLS / name), *args], capture_output=True, text=True, check=True).stdout


class _Target:
    """A driver that knows its chip and can do nothing else."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        # Triton remembers what it compiled by number of device: one for each capability
        return self._target.arch

    def get_current_stream(self, device: int | None = None) -> int:
        return 0
