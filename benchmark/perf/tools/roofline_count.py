"""Count a training step of a preset with fused bf16 kernels for a GPU that need not be present."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.can_run import import_compiler
from benchmark.perf.tools.launch_trace import Launch, Trace, trace_step
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.roofline import (
    CodeOf,
    Efficiency,
    KernelCode,
    Key,
    LaunchClass,
    RooflineModel,
    Sums,
    Work,
    add_iterations,
    extrapolate,
    total,
)
from data_prep.progress import tracked
from openfold_opt.kernels.chips import Chip, SustainedRates
from openfold_opt.kernels.select import KernelConfig
from openfold_opt.parallel.context import ParallelConfig, counted_axis
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.graph_memory import with_evoformer_blocks
from openfold_opt.train.memory_plan import StepMemory
from openfold_opt.train.precision import Precision, matmul_precision

PRECISION: Precision = "bf16"
MEAN = "mean"
SMALL_COLLECTIVE_BYTES = 10**6

Steps = Mapping[tuple[int, int], Trace]
"""Number of Evoformer blocks, number of recycling iterations (each 0 to 2) -> a step."""


@dataclass(frozen=True, kw_only=True)
class ModuleWork:
    """The launches of a module in one direction, in a mean step."""

    module: str
    direction: str
    work: Work


@dataclass(frozen=True, kw_only=True)
class KernelWork:
    """The launches of a kernel in one class, in a mean step."""

    kernel: str
    """File and function, or a PyTorch operator."""
    signature: str
    """Types and constants of a Triton kernel; empty for a PyTorch operator."""
    launch_class: str | None
    """None if the kernels were not compiled."""
    work: Work
    fewest_programs: int | None = None
    most_programs: int | None = None
    code: KernelCode | None = None


@dataclass(frozen=True, kw_only=True)
class CollectiveCalls:
    """Calls of one collective in a mean step."""

    what: str
    kind: str
    sent_bytes: int
    """Bytes that a rank sends in each call."""
    calls: float


@dataclass(frozen=True, kw_only=True)
class RooflineMetrics:
    """A step of a preset on one GPU."""

    device: str
    dap: int
    num_recomputed_blocks: int
    rates: SustainedRates
    num_sms: int
    efficiencies: dict[str, Efficiency]
    steps: dict[str, Work]
    """By number of recycling iterations, and their mean."""
    modules: list[ModuleWork]
    kernels: list[KernelWork]
    collectives: list[CollectiveCalls]


def fast_config(config: RunConfig, *, dap_size: int) -> RunConfig:
    """Return a preset with the kernels and the precision of mlperf_fast."""
    return dataclasses.replace(
        config,
        kernels=KernelConfig.all("triton"),
        precision=PRECISION,
        recompute="auto",
        parallel=dataclasses.replace(ParallelConfig(), dap_size=dap_size),
    )


def check_memory(config: RunConfig, chip: Chip) -> None:
    """Check that a step fits without recomputation, which recompute="auto" then leaves out.

    Raises:
        BenchmarkError: It does not fit.
    """
    memory = StepMemory(config, config.kernels, has_graphs=True)
    free, needed = memory.usable_bytes(chip.memory_bytes), memory.needed(0)
    if needed > free:
        raise BenchmarkError(
            f"a step needs {needed / 1e9:.1f} GB and {chip.name} has {free / 1e9:.1f} GB for it, "
            "so blocks would be recomputed, which --roofline does not count; use a larger --dap or "
            "a GPU with more memory"
        )


def trace_steps(config: RunConfig) -> dict[tuple[int, int], Trace]:
    """Trace steps with one and two Evoformer blocks, and with and without a recycling iteration."""
    with_recycling = (0, 1) if config.data.max_recycling_iterations else (0,)
    with matmul_precision(config.precision):
        # The first step creates constants that later steps reuse.
        _trace(config, 1, with_recycling[-1])
        return {
            (blocks, iterations): _trace(config, blocks, iterations)
            for blocks in (1, 2)
            for iterations in with_recycling
        }


def _trace(config: RunConfig, blocks: int, iterations: int) -> Trace:
    calls: Counter = Counter()
    axis = counted_axis(config.parallel, size=config.parallel.dap_size)
    step = MetaStep.build(
        with_evoformer_blocks(config, blocks),
        kernels="triton",
        precision=config.precision,
        num_recycling_iterations=iterations,
        dap=dataclasses.replace(axis, on_launch=lambda *call: calls.update([call])),
    )
    return trace_step(step, calls)


def compile_kernels(traces: Steps, chip: Chip) -> CodeOf:
    """Compile the kernels of a step for a chip and read their machine code.

    Raises:
        BenchmarkError: A kernel does not compile for the chip.
    """
    compiling = import_compiler()
    launches = compiling.distinct_launches(
        (launch for trace in traces.values() for launch in trace.triton_launches),
        every_alignment=False,
    )
    what = f"compile for sm_{chip.capability} in {PRECISION}"
    try:
        with matmul_precision(PRECISION):
            compiled = compiling.compile_launches(
                tracked(launches, what=what, unit="kernel"), chip.capability
            )
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    fields = [field.name for field in dataclasses.fields(KernelCode)]
    return {
        (each.kernel, each.signature): KernelCode(**{name: getattr(each, name) for name in fields})
        for each in compiled
    }


def build_metrics(config: RunConfig, traces: Steps, model: RooflineModel) -> RooflineMetrics:
    """Sum the launches of the traced steps, and extrapolate to all blocks and iterations."""
    counts = _Extrapolation(config, traces, model)
    by_module = counts.mean_by(lambda launch: (launch.module, launch.direction))
    return RooflineMetrics(
        device=model.chip.name,
        dap=config.parallel.dap_size,
        num_recomputed_blocks=0,
        rates=model.rates,
        num_sms=model.chip.num_sms,
        efficiencies={str(name): value for name, value in model.efficiencies.items()},
        steps=counts.steps(),
        modules=[
            ModuleWork(module=module, direction=direction, work=work)
            for (module, direction), work in sorted(by_module.items())
        ],
        kernels=_kernel_works(counts, traces, model),
        collectives=counts.mean_collectives(),
    )


class _Extrapolation:
    """Sums of a step with all Evoformer blocks."""

    def __init__(self, config: RunConfig, traces: Steps, model: RooflineModel) -> None:
        self._further = config.model.evoformer_stack.num_blocks - 1
        self._max_iterations = config.data.max_recycling_iterations
        self._traces = traces
        self._model = model

    def steps(self) -> dict[str, Work]:
        """Return the sums by number of recycling iterations, and their mean."""
        whole = self._by(lambda launch: ())
        numbers: dict[str, float] = {
            str(number): number for number in range(self._max_iterations + 1)
        }
        numbers[MEAN] = self._max_iterations / 2
        return {
            name: total(add_iterations(*whole, number).values()) for name, number in numbers.items()
        }

    def mean_by(self, key: Key) -> Sums:
        """Return the sums of a mean step by a function of the launch."""
        return add_iterations(*self._by(key), self._max_iterations / 2)

    def _by(self, key: Key) -> tuple[Sums, Sums]:
        """Return the sums with no recycling iteration and with one."""
        sums = {
            size: self._model.sum_by(trace.launches, key) for size, trace in self._traces.items()
        }
        without = extrapolate(sums[1, 0], sums[2, 0], self._further)
        if (1, 1) not in sums:
            return without, without
        return without, extrapolate(sums[1, 1], sums[2, 1], self._further)

    def mean_collectives(self) -> list[CollectiveCalls]:
        """Return the collectives of a mean step, the smallest first."""
        calls = {
            size: {call: Work(launches=times) for call, times in trace.collectives.items()}
            for size, trace in self._traces.items()
        }
        without = extrapolate(calls[1, 0], calls[2, 0], self._further)
        with_one = without
        if (1, 1) in calls:
            with_one = extrapolate(calls[1, 1], calls[2, 1], self._further)
        mean = add_iterations(without, with_one, self._max_iterations / 2)
        return [
            CollectiveCalls(what=what, kind=kind, sent_bytes=sent, calls=work.launches)
            for (what, kind, sent), work in sorted(mean.items(), key=lambda item: item[0][::-1])
        ]


def _kernel_works(counts: _Extrapolation, traces: Steps, model: RooflineModel) -> list[KernelWork]:
    def key(launch: Launch) -> tuple[str, str, LaunchClass | None]:
        return launch.kernel, launch.signature or "", model.classify(launch)

    programs: dict[tuple, list[int]] = {}
    for trace in traces.values():
        for launch in trace.launches:
            if launch.programs is not None:
                programs.setdefault(key(launch), []).append(launch.programs)
    by_kernel = counts.mean_by(key)
    return [
        KernelWork(
            kernel=name[0],
            signature=name[1],
            launch_class=name[2],
            work=work,
            fewest_programs=min(programs.get(name, [0])) or None,
            most_programs=max(programs.get(name, [0])) or None,
            code=None if model.code is None else model.code.get((name[0], name[1])),
        )
        for name, work in sorted(by_kernel.items(), key=lambda item: -item[1].floor_seconds)
    ]
