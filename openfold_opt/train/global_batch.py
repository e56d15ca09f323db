"""Derive gradient accumulation from the global batch size and the number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from openfold_opt.parallel.broadcast import broadcast_object
from openfold_opt.parallel.context import ParallelContext, count_training_ranks
from openfold_opt.train.config import RunConfig
from openfold_opt.train.phases import Phase


def fit_accumulation(config: RunConfig, data_parallel_size: int) -> RunConfig:
    """Return the configuration with the accumulation that gives its global batch.

    A configuration without global_batch_size is returned unchanged.

    Raises ValueError if the global batch is not a multiple of the ranks' micro-batches.
    """
    size = config.global_batch_size
    # Samples that all ranks process at once.
    concurrent = data_parallel_size * config.local_batch_size
    if size is None:
        return config
    if size % concurrent:
        raise ValueError(
            f"global_batch_size={size} is not a multiple of {concurrent} = {data_parallel_size} "
            f"data-parallel ranks x local_batch_size={config.local_batch_size}; use a number of "
            "ranks that divides it, or choose a preset with another global_batch_size or "
            "local_batch_size"
        )
    return replace(config, accumulation=size // concurrent)


def check_global_batch(config: RunConfig, world_size: int) -> RunConfig:
    """Return the configuration with the accumulation that `world_size` ranks would use.

    Raises ValueError if the ranks cannot be split into groups, or do not divide the global batch.
    """
    num_training = count_training_ranks(config.parallel, world_size)
    return fit_accumulation(config, num_training // config.parallel.dap_size)


def check_phase_ranks(phases: Sequence[Phase], num_ranks: int) -> None:
    """Raise ValueError, which names the phase, if the ranks do not fit one of the phases."""
    for phase in phases:
        try:
            check_global_batch(phase.config, num_ranks)
        except ValueError as error:
            raise ValueError(
                f"{phase.title} does not fit {num_ranks} ranks: {error}. With --phase, every phase "
                "can run in a separate job, on other ranks"
            ) from error


def keep_global_batch(
    config: RunConfig,
    context: ParallelContext,
    *,
    resumed_batch: int | None,
    report: Callable[[str], None],
) -> RunConfig:
    """Return the configuration with the accumulation that this run needs.

    A resumed run keeps its global batch on any number of ranks. A new run uses the configured one.
    resumed_batch: that of the newest checkpoint, on the first rank; None: a new run. report:
    receives a line if the accumulation is not that of the configuration.

    Raises ValueError on every rank if the ranks do not divide that batch, or if the resumed run
    has another batch than the configuration.
    """
    resumed = broadcast_object(resumed_batch, context.training_ranks)
    if resumed is not None and config.global_batch_size not in (None, resumed):
        raise ValueError(
            f"the resumed run has a global batch of {resumed}, the configuration has "
            f"global_batch_size={config.global_batch_size}; set it to {resumed}, or choose another "
            "output directory"
        )
    expected = config if resumed is None else replace(config, global_batch_size=resumed)
    try:
        fitted = fit_accumulation(expected, context.data.size)
    except ValueError as error:
        if resumed is None:
            raise
        raise ValueError(
            f"the resumed run has a global batch of {resumed}; {context.data.size} data-parallel "
            f"ranks with local_batch_size={config.local_batch_size} do not divide it: use another "
            "number of ranks"
        ) from error
    if fitted.accumulation != config.accumulation:
        report(
            f"accumulation {fitted.accumulation}: the global batch of {fitted.global_batch_size} / "
            f"({context.data.size} data-parallel ranks x {config.local_batch_size} samples)"
        )
    return fitted
