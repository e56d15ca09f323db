"""`perf resources`: compile every kernel of a training step and report its resources.

Needs no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.can_run import import_compiler, import_with_triton
from benchmark.perf.tools.meta_step import META, MetaStep
from benchmark.perf.tools.options import add_preset
from benchmark.perf.tools.timing_stats import table
from benchmark.presets import build_preset
from data_prep.progress import tracked
from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.reference.weight_update import WeightUpdateShapes
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import with_evoformer_blocks
from openfold_opt.train.precision import PRECISIONS, matmul_precision

CAPABILITIES = (80, 90, 100)
"""sm_80 (A100), sm_90 (H100), sm_100 (B200)."""
WIDEST_HEADS = (64, 128)
"""Head sizes of the widest models, whose attention uses other block sizes."""


@dataclass(frozen=True, kw_only=True)
class KernelResources:
    """Resources of a compiled kernel, as in openfold_opt/kernels/triton/compiling.py."""

    kernel: str
    """File and function."""
    signature: str
    """Types of the tensors, and compile-time constants."""
    shared_bytes: int
    registers: int | None
    """Per thread. This and all below are None if only shared memory was allocated."""
    stack_bytes: int | None
    spills: int | None
    """Instructions that store registers to memory or load them from it."""
    wgmma: int | None = None
    """Matrix instructions of a warpgroup (HGMMA)."""
    mma: int | None = None
    """Matrix instructions of a warp (HMMA)."""
    fma: int | None = None
    """Multiply-add instructions of the CUDA cores (FFMA)."""


@dataclass(frozen=True, kw_only=True)
class ResourceMetrics:
    """Resources of the kernels of a step."""

    preset: str
    dap: list[int] = field(default_factory=list)
    """Sizes of the DAP group."""
    kernels: dict[str, list[KernelResources]]
    """Resources by "sm_(compute capability) (precision)"."""


METRICS = ResourceMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_preset(parser, default="mlperf_reference")
    add = parser.add_argument
    add(
        "--capability",
        type=int,
        nargs="+",
        default=CAPABILITIES,
        choices=CAPABILITIES,
        help="compute capabilities (default: all)",
    )
    add("--precision", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="default: all")
    add(
        "--dap",
        type=int,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="sizes of the DAP group (default: 1 8, which have all tiles)",
    )
    add(
        "--widest",
        action="store_true",
        help=(
            "also use the largest widths that the kernels accept, and sizes that are not "
            "multiples of 16"
        ),
    )
    add(
        "--only-memory",
        action="store_true",
        help="stop the compiler when shared memory is allocated; takes a tenth of the time",
    )
    add(
        "--every-alignment",
        action="store_true",
        help="also compile variants that differ only in which integers are divisible by 16",
    )


def measure(args: argparse.Namespace) -> ResourceMetrics:
    """Compile the kernels and return their resources by capability and precision.

    Raises:
        BenchmarkError: Triton is missing or set to interpret, or a kernel does not compile.
    """
    compiling = import_compiler()
    resources: dict[str, list[KernelResources]] = {}
    for precision in args.precision:
        launches = compiling.distinct_launches(
            _all_launches(args, precision), every_alignment=args.every_alignment
        )
        for capability in args.capability:
            try:
                what = f"compile for sm_{capability} in {precision}"
                kernels = compiling.compile_launches(
                    tracked(launches, what=what, unit="kernel"),
                    capability,
                    only_memory=args.only_memory,
                )
            except ValueError as error:
                raise BenchmarkError(f"{precision}: {error}") from error
            resources[f"sm_{capability} {precision}"] = [
                KernelResources(**dataclasses.asdict(kernel)) for kernel in kernels
            ]
    return ResourceMetrics(preset=args.preset, dap=args.dap, kernels=resources)


def _all_launches(args: argparse.Namespace, precision: str) -> list[Any]:
    """Return the launches of a step for each DAP size, and of the widest models if requested.

    A step has one recycling iteration, whose kernels write nothing for a backward pass.
    """
    # All Evoformer blocks are the same, so one of them launches every kernel.
    config = with_evoformer_blocks(build_preset(args.preset), 1)
    steps = [(config, counted_axis(config.parallel, size=n)) for n in args.dap]
    if args.widest:
        steps += [(widest_model(config, size), AxisGroup.single("dap")) for size in WIDEST_HEADS]
    launches = []
    with matmul_precision(precision):
        for config, dap in steps:
            launches += step_launches(
                MetaStep.build(
                    config,
                    kernels="triton",
                    precision=precision,
                    dap=dap,
                    num_recycling_iterations=min(1, config.data.max_recycling_iterations),
                )
            )
    return launches


def widest_model(config: RunConfig, head_size: int) -> RunConfig:
    """Return the preset with the largest widths that the kernels accept, and an odd crop size."""
    model = config.model
    evoformer = dataclasses.replace(
        model.evoformer_stack,
        c_hidden_msa_attention=head_size,
        c_hidden_triangle_attention=head_size,
        c_hidden_outer_product=64,
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(model, c_m=256, c_z=256, evoformer_stack=evoformer),
        data=dataclasses.replace(config.data, crop_size=255),
    )


def step_launches(step: MetaStep) -> list[Any]:
    """Return all launches of a step and of the optimizer."""
    launches = []
    with import_with_triton("openfold_opt.kernels.triton.launching").launches_on_meta(
        lambda *launch: launches.append(launch)
    ):
        step.run()
        size = sum(parameter.numel() for parameter in step.model.parameters())
        # With the compute copy of a run in bf16, whose kernel also compiles for other precisions.
        make = TensorMaker(device=META, dtype=torch.bfloat16)
        arguments = WeightUpdateShapes(num_parameters=size).arguments(make)
        arguments.call(step.plan.kernels.weight_update)()
    return launches


def report(metrics: ResourceMetrics) -> str:
    """Format the shared memory of each kernel, and a table per capability and precision."""
    parts = [_summary(metrics.kernels)]
    for name, kernels in metrics.kernels.items():
        columns = ("kernel", "registers", "shared_bytes", "stack_bytes", "spills", "signature")
        rows = [[str(getattr(kernel, column)) for column in columns] for kernel in kernels]
        title = f"{name}: {len(kernels)} kernels of a step of {metrics.preset}"
        parts.append(f"{title}\n\n{table(rows, header=list(columns))}")
    return "\n\n".join(parts)


def _summary(kernels: dict[str, list[KernelResources]]) -> str:
    """Format the largest shared memory of each kernel in bytes, by GPU and precision."""
    names = sorted({kernel.kernel for variants in kernels.values() for kernel in variants})
    rows = [
        [name, *(str(_largest(variants, name)) for variants in kernels.values())] for name in names
    ]
    return "shared memory, bytes\n\n" + table(rows, header=["kernel", *kernels])


def _largest(variants: list[KernelResources], name: str) -> int:
    return max((kernel.shared_bytes for kernel in variants if kernel.kernel == name), default=0)


def headline(metrics: ResourceMetrics) -> str:
    """Summarize the kernels of each capability and precision."""
    parts = [f"{name} {_kernel_summary(kernels)}" for name, kernels in metrics.kernels.items()]
    return f"{metrics.preset}: {', '.join(parts)}"


def _kernel_summary(kernels: list[KernelResources]) -> str:
    """Summarize spills if the kernels were compiled completely, else the largest shared memory."""
    spills = [kernel.spills for kernel in kernels if kernel.spills is not None]
    if spills:
        return f"{sum(number > 0 for number in spills)} of {len(spills)} kernels spill registers"
    return f"at most {max(kernel.shared_bytes for kernel in kernels):,} bytes of shared memory"
