"""The wait of a run for its loaders, simulated with the settings of its preset."""

from __future__ import annotations

from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.loader_command import plan_loader
from benchmark.plan.loader_simulation import LoaderSetting
from benchmark.plan.preparation_times import preparation_times
from benchmark.plan.step_counts import PROJECT
from benchmark.plan.step_model import Layout
from openfold_opt.train.config import RunConfig

NUM_STEPS = 200


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
    waits = plan_loader(setting, times)
    return waits.lost_seconds / (NUM_STEPS * layout.accumulation)
