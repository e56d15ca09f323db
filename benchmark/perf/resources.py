"""`perf resources`: compile every kernel that a training step launches, without a GPU, and read what the compiler gave it."""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget

from benchmark.errors import BenchmarkError
from benchmark.perf.meta_step import META, MetaStep
from benchmark.perf.spread import table
from benchmark.presets import build_preset, preset_names
from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.kernels.triton.launch import IS_INTERPRETED, launches_on_meta
from openfold_opt.kernels.triton.weight_update import weight_update
from openfold_opt.train.precision import PRECISIONS, matmul_precision

HELP = "compile the kernels of a training step for a GPU that need not be there: registers, shared memory, stack, spills"
CAPABILITIES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Compute capability -> shared memory that one program may have, bytes (CUDA programming guide, table of technical specifications)."""
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclasses.dataclass(frozen=True, kw_only=True)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--preset", default="mlperf_reference", choices=preset_names(), help="whose shapes (default: mlperf_reference)")
    parser.add_argument(
        "--capability", type=int, nargs="+", default=sorted(CAPABILITIES), choices=sorted(CAPABILITIES), help="compute capabilities (default: all)"
    )
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=PRECISIONS, help="default: bf16")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Resources by capability and precision."""
    if IS_INTERPRETED:
        raise BenchmarkError("TRITON_INTERPRET is set: Triton interprets kernels and cannot compile them; unset it")
    config = build_preset(args.preset)
    figures: dict[str, Any] = {"preset": args.preset, "kernels": {}}
    for precision in args.precision:
        step = MetaStep.build(config, kernels="triton", precision=precision)
        for capability in args.capability:
            with matmul_precision(precision):
                found = compile_step(step, capability)
            figures["kernels"][f"sm_{capability} {precision}"] = [dataclasses.asdict(kernel) for kernel in found]
    return figures


def compile_step(step: MetaStep, capability: int) -> list[Resources]:
    """Every kernel of a step and of the optimiser, each specialisation once. From then on this process compiles for that chip.

    Raises:
        BenchmarkError: a kernel wants more shared memory than the chip has.
    """
    launches = _unique_launches(step)
    compiled: dict[str, Resources] = {}
    triton.runtime.driver.set_active(_Target(capability))
    for kernel, grid, args, options in tqdm(launches, desc=f"compile for sm_{capability}", unit="kernel"):
        binary = kernel.warmup(*args, grid=grid, **options)
        if binary.hash not in compiled:
            compiled[binary.hash] = _read(kernel, args, options, binary)
    for found in compiled.values():
        if found.shared_bytes > CAPABILITIES[capability]:
            raise BenchmarkError(
                f"{found.kernel} ({found.signature}) wants {found.shared_bytes} bytes of shared memory, sm_{capability} has "
                f"{CAPABILITIES[capability]}; give it smaller blocks"
            )
    return sorted(compiled.values(), key=lambda found: (found.kernel, found.signature))


def _unique_launches(step: MetaStep) -> list[tuple[Any, tuple[int, ...], tuple, dict[str, Any]]]:
    """Launches of a step that differ in what a kernel is compiled for."""
    found: dict[tuple, tuple] = {}

    def keep(kernel: Any, grid: tuple[int, ...], args: tuple, options: dict[str, Any]) -> None:
        key = (kernel.fn.__module__, kernel.fn.__name__, *map(_specialisation, args), *sorted(options.items()))
        found.setdefault(key, (kernel, grid, args, options))

    with launches_on_meta(keep):
        step.run()
        _update_weights(sum(parameter.numel() for parameter in step.model.parameters()))
    return list(found.values())


def _specialisation(argument: Any) -> Any:
    """What Triton compiles a kernel anew for: dtypes, and integers that are 1 or divisible by 16."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype
    if isinstance(argument, int):
        return (argument == 1, argument % 16 == 0, argument.bit_length() > 31)
    return type(argument)


def _update_weights(size: int) -> None:
    flat = torch.empty(size, device=META)
    scalar = torch.zeros((), device=META)
    count = torch.zeros((), dtype=torch.float64, device=META)
    state = WeightState(
        values=flat, exp_avg=flat, exp_avg_sq=flat, average=flat, num_steps=count, num_updates=scalar, compute_copy=flat.bfloat16()
    )
    constants = WeightUpdateConstants(beta_1=0.9, beta_2=0.999, epsilon=1e-6, max_norm=0.1, decay_rate=0.9)
    weight_update(state, flat, learning_rate=count, flag=scalar, constants=constants)


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


def report(figures: dict[str, Any]) -> str:
    """One table for each capability and precision."""
    parts = []
    for name, kernels in figures["kernels"].items():
        columns = ("kernel", "registers", "shared_bytes", "stack_bytes", "spills", "signature")
        rows = [[str(kernel[column]) for column in columns] for kernel in kernels]
        parts.append(f"{name}: {len(kernels)} kernels of a step of {figures['preset']}\n\n{table(rows, header=list(columns))}")
    return "\n\n".join(parts)
