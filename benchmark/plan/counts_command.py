"""`plan counts`: trace training steps on tensors without values, and store their counts."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmark.code_revision import describe_commit
from benchmark.command_line import check_output_option, whole_number
from benchmark.machine import CHECKOUT
from benchmark.perf.tools.can_run import import_with_triton
from benchmark.perf.tools.launch_trace import Launch, Trace, trace_step
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.plan.step_counts import (
    NVIDIA,
    PROJECT,
    REFERENCE,
    STORED,
    Collective,
    CountSource,
    LaunchGroup,
    Memory,
    StepCounts,
    shape_name,
)
from benchmark.plan.stored_counts import SHIPPED, CountRequest, add_counts
from benchmark.plan.train_command import phases_named
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.plan import ALL_BLOCKS
from openfold_opt.parallel.context import counted_axis
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import BYTES_PER_NODE, with_evoformer_blocks
from openfold_opt.train.memory_plan import StepMemory, saved_bytes, state_bytes
from openfold_opt.train.precision import Precision, matmul_precision

FEW_PROGRAMS = 256
"""Launches with at least as many programs fill every GPU of chips.py."""
_GROUPS_PER_OCTAVE = 3
_CLASSES = Path("results/measured/roofline_mlperf_reference_h200.json")
_TUNED = ("layer_norm", "residual_norm", "self_attention", "dropout_residual", "weight_update")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeBase:
    """How a step of a code base is traced."""

    kernels: KernelConfig
    precision: Precision
    num_chunks: int
    """Chunks of the work of a DAP group."""
    recomputes_below_dap: int
    """DAP sizes below this one recompute all blocks."""


CODE_BASES: Mapping[str, CodeBase] = {
    PROJECT: CodeBase(
        kernels=KernelConfig.all("triton"), precision="bf16", num_chunks=2, recomputes_below_dap=1
    ),
    REFERENCE: CodeBase(
        kernels=KernelConfig(), precision="tf32", num_chunks=1, recomputes_below_dap=2
    ),
    NVIDIA: CodeBase(
        kernels=dataclasses.replace(KernelConfig(), **dict.fromkeys(_TUNED, "triton")),
        precision="bf16",
        num_chunks=1,
        recomputes_below_dap=2,
    ),
}
"""The others are approximated with this project's kernels.

- mlcommons_reference: its operations are those of the reference kernels, and it recomputes all
  blocks.
- nvidia_v3.0: fused attention, layer norm, dropout with residual and optimizer, the rest as in the
  reference; its source recomputes all blocks without DAP, and none with DAP.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--preset",
        default="mlperf_reference",
        metavar="P",
        help="name, or path of a file; every phase is counted (default: mlperf_reference)",
    )
    add("--code", default=PROJECT, choices=list(CODE_BASES), help=f"(default: {PROJECT})")
    add(
        "--dap",
        type=whole_number(1, 1024),
        nargs="+",
        default=[1, 2, 4, 8],
        metavar="P",
        help="DAP sizes",
    )
    add("--out", type=Path, default=STORED, metavar="FILE", help="file to add the counts to")
    add(
        "--stored",
        action="store_true",
        help="count all steps that ship, whatever --preset, --code and --dap are",
    )


def run(args: argparse.Namespace) -> int:
    """Trace each step and add it to the file. Replaces counts that the file has."""
    check_output_option("--out", args.out)
    import_with_triton("openfold_opt.kernels.triton.launching")
    asked = CountRequest(preset=args.preset, code=args.code, dap_sizes=args.dap)
    for request in SHIPPED if args.stored else (asked,):
        source = CountSource(
            command=request.command(),
            commit=describe_commit(CHECKOUT),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        for config in _configs_by_shape(request.preset):
            for dap in request.dap_sizes:
                step = count_step(config, request.code, dap, source)
                add_counts(args.out, step)
                groups = len(step.launches)
                print(f"{args.out}: {step.code}, DAP {dap}, {step.shape}: {groups} groups")
    return 0


def _configs_by_shape(preset: str) -> list[RunConfig]:
    """Return a configuration for each shape that the phases of a preset have."""
    phases = phases_named(preset, None)
    return list({shape_name(phase.config): phase.config for phase in phases}.values())


def count_step(config: RunConfig, code: str, dap: int, source: CountSource) -> StepCounts:
    """Trace a step with one and two Evoformer blocks, with and without a recycling iteration."""
    base = CODE_BASES[code]
    config = dataclasses.replace(
        config,
        kernels=base.kernels,
        precision=base.precision,
        local_batch_size=1,
        recompute="auto",
        parallel=dataclasses.replace(
            config.parallel, dap_size=dap, dap_chunks=base.num_chunks, num_evaluation_ranks=0
        ),
    )
    most = int(config.data.max_recycling_iterations > 0)
    sizes = dict.fromkeys((blocks, n) for n in (0, most) for blocks in (1, 2))
    with matmul_precision(base.precision):
        # The first step creates constants that later steps reuse.
        _trace(config, base, 1, most)
        traced = {size: _trace(config, base, *size) for size in sizes}
    traces = {size: trace for size, (trace, _) in traced.items()}
    num_blocks = config.model.evoformer_stack.num_blocks
    parameters = [traced[blocks, 0][1] for blocks in (1, 2)]
    launches = _groups(traces, num_blocks)
    return StepCounts(
        source=source,
        code=code,
        shape=shape_name(config),
        dap=dap,
        recomputes=dap < base.recomputes_below_dap,
        num_blocks=num_blocks,
        num_parameters=parameters[0] + (num_blocks - 1) * (parameters[1] - parameters[0]),
        launches=launches,
        collectives=_collectives(traces, num_blocks),
        memory=_memory(config, launches) if code == PROJECT else None,
    )


def _trace(config: RunConfig, base: CodeBase, blocks: int, iterations: int) -> tuple[Trace, int]:
    """Return the trace of a step, and the number of parameters of its model."""
    calls: Counter = Counter()
    size = config.parallel.dap_size
    axis = counted_axis(config.parallel, size=size)
    if size > 1:
        axis = dataclasses.replace(axis, on_launch=lambda *call: calls.update([call]))
    step = MetaStep.build(
        with_evoformer_blocks(config, blocks),
        kernels="triton",
        precision=base.precision,
        num_recycling_iterations=iterations,
        dap=axis,
        num_recomputed_blocks=ALL_BLOCKS if size < base.recomputes_below_dap else 0,
    )
    kernels = build_kernel_set(base.kernels, "meta", config.model.kernel_shapes())
    step = dataclasses.replace(step, plan=dataclasses.replace(step.plan, kernels=kernels))
    num_parameters = sum(parameter.numel() for parameter in step.model.parameters())
    return trace_step(step, calls, with_modules=False), num_parameters


Rows = Sequence[tuple[float, ...]]
"""Launches, bytes and operations, each of the pass with gradient, an iteration and a block."""
Totals = dict[tuple, tuple[float, float, float]]
"""Key of similar launches -> sums of launches, bytes, operations."""


def _groups(traces: Mapping[tuple[int, int], Trace], num_blocks: int) -> list[LaunchGroup]:
    kinds = read_classes(CHECKOUT / _CLASSES)
    sums = {size: _sums(trace.launches, kinds) for size, trace in traces.items()}
    forward = [
        _sums((x for x in traces[n, 0].launches if x.direction == "forward"), kinds) for n in (1, 2)
    ]
    further, nothing = num_blocks - 1, (0.0, 0.0, 0.0)
    most = max(iterations for _, iterations in traces)
    groups = []
    for key in dict.fromkeys(key for each in sums.values() for key in each):
        one, two = sums[1, 0].get(key, nothing), sums[2, 0].get(key, nothing)
        one_more, two_more = (sums[n, most].get(key, nothing) for n in (1, 2))
        rows = []
        for i in range(3):
            block = forward[1].get(key, nothing)[i] - forward[0].get(key, nothing)[i]
            steps = [a[i] + further * (b[i] - a[i]) for a, b in ((one, two), (one_more, two_more))]
            rows.append((steps[0], steps[1] - steps[0], block))
        groups.append((key, rows))
    return _merged(groups)


def _merged(groups: Sequence[tuple[tuple, Rows]]) -> list[LaunchGroup]:
    """Return groups with means of bytes and operations over all of their launches.

    Some launches have buffers whose size depends on the number of blocks. Their number extrapolates
    to less than 0 in one group, and to too many in another, or their bytes do. Such groups are
    merged with the group of their class that has most launches or bytes: the sums are right.
    """
    left = list(groups)
    while True:
        wrong = next((each for each in left if _lacks(each[1]) is not None), None)
        if wrong is None:
            break
        left.remove(wrong)
        row = _lacks(wrong[1])
        similar = [each for each in left if each[0][0] == wrong[0][0]]
        most = max(similar, key=lambda each: sum(each[1][row][:2]))
        left.remove(most)
        left.append((most[0], _sum_rows(most[1], wrong[1])))
    found = [_launch_group(key, rows) for key, rows in left if any(rows[0][:2])]
    return sorted(found, key=lambda each: (each.kind, -each.bytes * each.gradient))


def _lacks(rows: Rows) -> int | None:
    """Return 0 if a number of launches is negative, 1 if their bytes are; None if neither is."""
    if min(rows[0]) < 0:
        return 0
    return 1 if rows[1][0] + rows[1][1] < 0 else None


def _sum_rows(one: Rows, other: Rows) -> Rows:
    return [tuple(x + y for x, y in zip(a, b)) for a, b in zip(one, other)]


def _launch_group(key: tuple, rows: Rows) -> LaunchGroup:
    gradient, iteration, block = rows[0]
    calls = gradient + iteration
    return LaunchGroup(
        kind=key[0],
        bytes=round((rows[1][0] + rows[1][1]) / calls),
        flops=round((rows[2][0] + rows[2][1]) / calls),
        programs=key[3],
        gradient=gradient,
        iteration=iteration,
        block=block,
    )


def _sums(launches: Iterable[Launch], kinds: Mapping[str, str]) -> Totals:
    sums: Totals = {}
    for launch in launches:
        key = _key(launch, kinds)
        calls, size, flops = sums.get(key, (0.0, 0.0, 0.0))
        sums[key] = (calls + 1, size + launch.bytes, flops + launch.flops)
    return sums


def _key(launch: Launch, kinds: Mapping[str, str]) -> tuple:
    programs = launch.programs
    if programs is not None:
        programs = None if programs >= FEW_PROGRAMS else 2 ** math.ceil(math.log2(programs))
    return (_kind(launch, kinds), _bin(launch.bytes), _bin(launch.flops), programs)


def _kind(launch: Launch, kinds: Mapping[str, str]) -> str:
    if launch.programs is None:
        if not launch.flops:
            return "pytorch"
        return "cublas_float32" if launch.is_float32 else "cublas"
    return kinds.get(launch.kernel, "mma") if launch.flops else "memory"


def _bin(value: int) -> int:
    return round(_GROUPS_PER_OCTAVE * math.log2(value)) if value else -1


def read_classes(path: Path) -> dict[str, str]:
    """Read the class of each kernel with products from a record of `perf counts --roofline`."""
    record = json.loads(path.read_text(encoding="utf-8"))
    kinds = {}
    for kernel in record["figures"]["roofline"]["kernels"]:
        code = kernel.get("code")
        if code and kernel["work"]["flops"]:
            fast = "wgmma" if code["wgmma"] else "mma"
            kinds[kernel["kernel"]] = fast if code["wgmma"] or code["mma"] else "fma"
    return kinds


def _collectives(traces: Mapping[tuple[int, int], Trace], num_blocks: int) -> list[Collective]:
    calls = {size: trace.collectives for size, trace in traces.items()}
    most = max(iterations for _, iterations in traces)
    result = []
    for name in sorted({name for each in calls.values() for name in each}):
        gradient, with_iteration = (
            calls[1, n].get(name, 0)
            + (num_blocks - 1) * (calls[2, n].get(name, 0) - calls[1, n].get(name, 0))
            for n in (0, most)
        )
        result.append(
            Collective(
                what=name[0],
                kind=name[1],
                sent_bytes=name[2],
                gradient=gradient,
                iteration=with_iteration - gradient,
            )
        )
    return result


def _memory(config: RunConfig, launches: Sequence[LaunchGroup]) -> Memory:
    """Return the memory of a step; every Evoformer block adds the same bytes."""
    num_blocks = config.model.evoformer_stack.num_blocks
    small = [with_evoformer_blocks(config, number) for number in (1, 2)]
    kept, recomputed = (
        [
            saved_bytes(
                each,
                config.kernels,
                num_recomputed_blocks=number,
                dap_size=config.parallel.dap_size,
            )
            for each in small
        ]
        for number in (0, ALL_BLOCKS)
    )
    further = num_blocks - 1
    saved = kept[0] + further * (kept[1] - kept[0])
    saved_recomputed = recomputed[0] + further * (recomputed[1] - recomputed[0])
    passes = range(config.data.num_passes)
    nodes = sum(
        each.gradient + num_blocks * each.block + number * each.iteration
        for each in launches
        for number in passes
    )
    return Memory(
        state=state_bytes(config),
        saved=saved,
        saved_recomputed=saved_recomputed,
        block=(kept[1] - kept[0]) - (recomputed[1] - recomputed[0]),
        workspace=StepMemory(config, config.kernels, has_graphs=False).largest_workspace.bytes,
        graphs=round(BYTES_PER_NODE * nodes),
    )
