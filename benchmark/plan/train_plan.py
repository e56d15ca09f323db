"""The plan of a training run: step, memory, time to the target, GPU-hours, energy and cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmark.command_line import BenchmarkError
from benchmark.plan.convergence import (
    Evaluation,
    RunTime,
    Samples,
    run_time,
    samples_to_080,
    samples_to_090,
)
from benchmark.plan.evaluation_time import evaluation_seconds
from benchmark.plan.memory import MemoryNeed, plan_memory
from benchmark.plan.step_counts import PROJECT, REFERENCE, CountTable, StepCounts, shape_name
from benchmark.plan.step_model import Factors, Layout, StepTime, predict_step
from benchmark.plan.systems import System
from openfold_opt.train.config import RunConfig
from openfold_opt.train.phases import Phase

START_SECONDS = 100.0
"""Time of a run in addition to steps, pauses and last evaluation.

The published results have 81 to 173 s (published.json); this project's is not measured on a GPU.
"""


@dataclass(frozen=True, kw_only=True)
class TargetTime:
    """A run to a target."""

    target: float | None
    """lDDT-Ca; None: the steps of the phase, without a known score."""
    samples: float
    """Mean."""
    is_extrapolated: bool
    """Whether no source has samples for this batch."""
    seconds: float
    least_seconds: float
    most_seconds: float
    """With the fewest and the most samples of the sources' runs."""
    parts: RunTime
    gpu_hours: float
    energy_kwh: float | None
    cost: float | None
    currency: str | None


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What is expected of a run, or of one phase of it."""

    preset: str
    phase: str
    system: str
    layout: Layout
    batch: int
    step: StepTime
    step_seconds: float
    least_step_seconds: float
    most_step_seconds: float
    """With the factors of the other code bases, the smallest and the largest; see `spread`."""
    seconds_by_iterations: dict[str, float]
    """Number of recycling iterations -> seconds of a step."""
    memory: MemoryNeed | None
    """None for a code base whose memory was not counted."""
    evaluation: Evaluation
    target: TargetTime | None
    """None if the samples to the target of the preset are unknown."""
    petaflops: float
    share_of_peak: float
    parallel_efficiency: float
    """Samples per second of a GPU against those of one GPU alone without DAP."""
    warnings: list[str]


def code_of(config: RunConfig) -> str:
    """Return the code base whose counts describe a preset of this project."""
    kernels = set(config.kernels.implementations.values())
    return REFERENCE if kernels == {"reference"} else PROJECT


def layout_for(config: RunConfig, system: System, num_gpus: int, *, code: str) -> Layout:
    """Return how a configuration without phases uses a number of GPUs.

    Raises:
        BenchmarkError: The GPUs cannot be divided into groups, or the batch cannot be split.
    """
    parallel, local = config.parallel, config.local_batch_size
    training = num_gpus - parallel.num_evaluation_ranks
    if system.num_gpus is not None and num_gpus > system.num_gpus:
        raise BenchmarkError(
            f"--gpus {num_gpus}: {system.name} has {system.num_gpus}; choose fewer"
        )
    if training < 1 or training % parallel.dap_size:
        raise BenchmarkError(
            f"--gpus {num_gpus}: {parallel.num_evaluation_ranks} evaluate, and the other {training}"
            f" cannot be divided into groups of {parallel.dap_size} (DAP); choose "
            f"{_near(num_gpus, parallel.num_evaluation_ranks, parallel.dap_size)}"
        )
    groups = training // parallel.dap_size
    batch = config.global_batch_size or groups * local * config.accumulation
    if batch % (groups * local):
        fitting = [n for n in range(1, batch + 1) if batch % (n * local) == 0]
        nearest = min(fitting, key=lambda n: abs(n - groups))
        gpus = nearest * parallel.dap_size + parallel.num_evaluation_ranks
        raise BenchmarkError(
            f"--gpus {num_gpus}: a batch of {batch} cannot be split over {groups} x DAP "
            f"{parallel.dap_size} with micro-batches of {local}; the nearest number that fits is "
            f"--gpus {gpus}, or change the batch or the DAP size of the preset"
        )
    return Layout(
        code=code,
        num_gpus=num_gpus,
        dap=parallel.dap_size,
        evaluation_ranks=parallel.num_evaluation_ranks,
        local_batch=local,
        accumulation=batch // (groups * local),
    )


def _near(num_gpus: int, evaluation: int, dap: int) -> int:
    return evaluation + max(1, round((num_gpus - evaluation) / dap)) * dap


def default_gpus(config: RunConfig) -> int:
    """Return the number of GPUs with one micro-batch a step."""
    groups = (config.global_batch_size or config.local_batch_size) // config.local_batch_size
    return groups * config.parallel.dap_size + config.parallel.num_evaluation_ranks


def plan_training(
    config: RunConfig,
    system: System,
    layout: Layout,
    table: CountTable,
    *,
    factors: Factors,
    preset: str,
    phase: Phase,
    loader_seconds: float = 0.0,
) -> TrainPlan:
    """Plan a phase, whose configuration is `config`.

    preset: its label. loader_seconds: mean wait of a micro-step for data.

    Raises:
        BenchmarkError: There are no counts for the samples, or the GPUs cannot hold a step.
    """
    counts = table.find(code=layout.code, shape=shape_name(config), dap=layout.dap, preset=preset)
    memory = None
    if counts.memory is not None:
        memory = plan_memory(counts, config, system)
        layout = replace(layout, recomputed_blocks=memory.recomputed_blocks)
    most = config.data.max_recycling_iterations

    def step_with(factor: float, iterations: float = most / 2) -> StepTime:
        return predict_step(
            counts,
            system,
            layout,
            Factors(by_code={**factors.by_code, layout.code: factor}),
            mean_iterations=iterations,
            loader_seconds=loader_seconds,
        )

    factor = factors.of(layout.code)
    step = step_with(factor)
    evaluation = _evaluation(config, system, layout, table, factors)
    rate = step.flops / step.total
    return TrainPlan(
        preset=preset,
        phase=phase.name,
        system=system.name,
        layout=layout,
        batch=layout.batch,
        step=step,
        step_seconds=step.total,
        least_step_seconds=step.total - step.parts["compute"] + _floor(step),
        most_step_seconds=step_with(max([1.0, *factors.by_code.values()])).total,
        seconds_by_iterations={
            str(number): step_with(factor, number).total for number in range(most + 1)
        },
        memory=memory,
        evaluation=evaluation,
        target=_target(phase, system, layout, step.total, evaluation),
        petaflops=rate / 1e15,
        share_of_peak=rate / (_peak(config, system) * layout.num_gpus),
        parallel_efficiency=_efficiency(config, system, layout, table, (factors, step)),
        warnings=_warnings(config, system, layout),
    )


def _peak(config: RunConfig, system: System) -> float:
    peak = system.chip.peak
    return peak.bf16 if config.precision == "bf16" else peak.tf32


def _floor(step: StepTime) -> float:
    """Return the compute at the peaks of the data sheet, which no kernel beats."""
    return min(step.ideal, step.parts["compute"])


def _evaluation(
    config: RunConfig, system: System, layout: Layout, table: CountTable, factors: Factors
) -> Evaluation:
    counts = table.find(code=layout.code, shape=shape_name(config), dap=1)
    seconds = evaluation_seconds(counts, system, layout, factors, crop=config.data.crop_size)
    return Evaluation(
        every_steps=config.evaluation.every_steps,
        seconds=seconds,
        is_concurrent=layout.evaluation_ranks > 0,
    )


def samples_of(phase: Phase, batch: int) -> Samples | None:
    """Return the samples of a phase: to its target, or those of its steps.

    None: the target is not one of the benchmark, and nothing is known.
    """
    config, settings = phase.config, phase.settings
    if phase.is_declared and settings.end_lddt_ca is None:
        return Samples(
            target=settings.required_lddt_ca,
            batch=batch,
            runs=(float(settings.steps * batch),),
            is_extrapolated=False,
        )
    target = settings.end_lddt_ca
    if target == 0.9:
        whole = samples_to_090(batch)
        left = tuple(max(batch, number - phase.first_sample) for number in whole.runs)
        return replace(whole, runs=left)
    if target == 0.8 and config.init_checkpoint_sha256 is not None:
        return samples_to_080(batch)
    return None


def _target(
    phase: Phase, system: System, layout: Layout, step_seconds: float, evaluation: Evaluation
) -> TargetTime | None:
    samples = samples_of(phase, layout.batch)
    if samples is None:
        return None

    def time_of(number: float) -> RunTime:
        return run_time(
            samples=number,
            batch=layout.batch,
            step_seconds=step_seconds,
            evaluation=evaluation,
            start=START_SECONDS,
        )

    mean = time_of(samples.mean)
    gpu_hours = layout.num_gpus * mean.total / 3600
    watts = system.power_watts
    price = system.price
    return TargetTime(
        target=samples.target,
        samples=samples.mean,
        is_extrapolated=samples.is_extrapolated,
        seconds=mean.total,
        least_seconds=time_of(samples.runs[0]).total,
        most_seconds=time_of(samples.runs[-1]).total,
        parts=mean,
        gpu_hours=gpu_hours,
        energy_kwh=None if watts is None else gpu_hours * watts / 1000,
        cost=None if price is None else gpu_hours * price.per_gpu_hour(system.gpus_per_node),
        currency=None if price is None else price.currency,
    )


def _efficiency(
    config: RunConfig,
    system: System,
    layout: Layout,
    table: CountTable,
    reference: tuple[Factors, StepTime],
) -> float:
    factors, step = reference
    counts = table.find(code=layout.code, shape=shape_name(config), dap=1)
    alone = Layout(
        code=layout.code,
        num_gpus=1,
        local_batch=layout.local_batch,
        recomputed_blocks=_fewest_recomputed(counts, config, system),
    )
    iterations = config.data.max_recycling_iterations / 2
    single = predict_step(counts, system, alone, factors, mean_iterations=iterations)
    training = layout.num_gpus - layout.evaluation_ranks
    return (layout.batch / step.total / training) / (alone.batch / single.total)


def _fewest_recomputed(counts: StepCounts, config: RunConfig, system: System) -> int:
    """Return the blocks that a GPU recomputes; all of them if not even that fits."""
    if counts.memory is None:
        return 0
    try:
        return plan_memory(counts, config, system).recomputed_blocks
    except BenchmarkError:
        return counts.num_blocks


def _warnings(config: RunConfig, system: System, layout: Layout) -> Sequence[str]:
    found = []
    if layout.dap > system.gpus_per_node:
        found.append(
            f"DAP {layout.dap}, but a node of {system.name} has {system.gpus_per_node} GPUs: the "
            "collectives of every block cross nodes; use a DAP size that divides it"
        )
    elif system.gpus_per_node % layout.dap:
        found.append(
            f"DAP {layout.dap} does not divide the {system.gpus_per_node} GPUs of a node: some "
            "groups are on two nodes, which is not modeled"
        )
    if layout.num_gpus % system.gpus_per_node:
        nodes = math.ceil(layout.num_gpus / system.gpus_per_node)
        found.append(f"{layout.num_gpus} GPUs leave some of {nodes} nodes idle")
    if config.kernels.self_attention == "reference" and layout.code == PROJECT:
        found.append("attention without fused kernels is counted as if it were fused")
    return found
