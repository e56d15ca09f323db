"""Plans with the wait for the loaders, simulated with the settings of the preset."""

from __future__ import annotations

from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.loader_plan import plan_loader
from benchmark.plan.loader_simulation import LoaderSetting
from benchmark.plan.preparation_times import preparation_times
from benchmark.plan.step_counts import PROJECT, CountTable
from benchmark.plan.step_model import Factors, Layout
from benchmark.plan.systems import System
from benchmark.plan.train_plan import TrainPlan, code_of, layout_for, plan_training
from openfold_opt.train.config import RunConfig
from openfold_opt.train.phases import Phase

NUM_STEPS = 200
_NOTICEABLE_SECONDS = 1e-6
"""Shorter waits are rounding."""


def plan_with_wait(
    phase: Phase,
    system: System,
    num_gpus: int,
    table: CountTable,
    *,
    factors: Factors,
    preset: str,
    loader_wait: float | None = None,
) -> TrainPlan:
    """Plan a phase on a number of GPUs. Other arguments as plan_training.

    loader_wait: mean seconds that a micro-step waits for data; None: simulated.

    Raises:
        BenchmarkError: There are no counts for the samples, the batch cannot be split over the
            GPUs, or they cannot hold a step.
    """
    layout = layout_for(phase.config, system, num_gpus, code=code_of(phase.config))

    def plan(loader_seconds: float) -> TrainPlan:
        return plan_training(
            phase.config,
            system,
            layout,
            table,
            factors=factors,
            preset=preset,
            phase=phase,
            loader_seconds=loader_seconds,
        )

    if loader_wait is not None:
        return plan(loader_wait)
    without = plan(0.0)
    wait = simulated_wait(phase.config, layout, without.step_seconds)
    return plan(wait) if wait > _NOTICEABLE_SECONDS else without


def simulated_wait(config: RunConfig, layout: Layout, step_seconds: float) -> float:
    """Return the mean seconds that a micro-step waits for the slowest loader.

    step_seconds: of an optimizer step without any wait.
    """
    loader, code = config.loader, CODE_BASES[layout.code]
    setting = LoaderSetting(
        step_seconds=step_seconds,
        num_steps=NUM_STEPS,
        num_workers=max(1, loader.num_workers),
        prefetch_per_worker=loader.prefetch_per_worker,
        window=0 if code.loads_in_order else loader.window,
        num_groups=layout.data_parallel,
        accumulation=layout.accumulation,
        local_batch_size=layout.local_batch,
        prefetch_depth=loader.prefetch_depth,
    )
    times = preparation_times(None, side="ours" if layout.code == PROJECT else "reference")
    return plan_loader(setting, times).wait_of_micro_step
