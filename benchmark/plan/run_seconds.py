"""The predicted time of a run, for the time limit of its job."""

from __future__ import annotations

from pathlib import Path

from benchmark.plan.loader_wait import plan_with_wait
from benchmark.plan.step_counts import STORED, read_table
from benchmark.plan.systems import System, load_system, system_names
from benchmark.plan.train_command import project_factors
from openfold_opt.kernels.chips import find_chip
from openfold_opt.train.phases import Phase


def predicted_seconds(
    phase: Phase, system: System, num_gpus: int, *, preset: str, counts: Path = STORED
) -> float | None:
    """Return the mean seconds of a run to the end of a phase, start-up included.

    Args:
        phase: the phase; that of a preset without phases is the whole run.
        system: where it runs.
        num_gpus: GPUs of the job, those that evaluate included.
        preset: label of the preset.
        counts: counts of steps.

    Returns:
        None if the number of samples to the target of the preset is unknown.

    Raises:
        BenchmarkError: There are no counts for the samples, or the GPUs do not fit.
    """
    table = read_table(counts)
    plan = plan_with_wait(
        phase,
        system,
        num_gpus,
        table,
        factors=project_factors(table),
        preset=preset,
    )
    return None if plan.target is None else plan.target.seconds


def system_of_gpu(name: str, *, gpus_per_node: int) -> System | None:
    """Return the system that ships with such nodes; None if there is none.

    name: of the GPU, as its driver reports it.
    """
    chip = find_chip(name)
    if chip is None:
        return None
    for each in map(load_system, system_names()):
        if (each.gpu, each.gpus_per_node) == (chip.name, gpus_per_node):
            return each
    return None
