"""Search the split of GPUs over DAP, data and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmark.command_line import BenchmarkError
from benchmark.plan.convergence import (
    Evaluation,
    Samples,
    run_time,
)
from benchmark.plan.evaluation_time import CHAINS, evaluation_seconds
from benchmark.plan.memory import plan_memory
from benchmark.plan.step_counts import CountTable, StepCounts, shape_name
from benchmark.plan.step_model import Factors, Layout, predict_step
from benchmark.plan.systems import System
from benchmark.plan.train_plan import START_SECONDS, samples_of
from openfold_opt.train.config import RunConfig
from openfold_opt.train.phases import Phase

EVALUATION_NODES = (0, 1, 2, 3, 4, 6, 8)
"""Numbers of nodes for evaluation that are tried."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A layout with its times."""

    layout: Layout
    batch: int
    step_seconds: float
    evaluation_seconds: float
    seconds: float
    """To the target."""
    gpu_hours: float


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is searched."""

    preset: str
    """Label of the preset that has the phase."""
    phase: Phase
    system: System
    code: str
    batches: Sequence[int]

    @property
    def config(self) -> RunConfig:
        """Configuration of the phase."""
        return self.phase.config

    def samples(self, batch: int) -> Samples:
        """Return the samples to the end of the phase.

        Raises:
            BenchmarkError: They are not known.
        """
        samples = samples_of(self.phase, batch)
        if samples is None:
            raise BenchmarkError(
                "the samples to the target of this preset are not known, so splits cannot be "
                "compared; known are 0.8 from the checkpoint of the benchmark, 0.9 from random "
                "weights, and phases with a number of steps"
            )
        return samples


def search_splits(
    space: SearchSpace, num_gpus: int, table: CountTable, factors: Factors
) -> list[Split]:
    """Return all splits of at most a number of GPUs, the fastest first.

    Raises:
        BenchmarkError: No split fits, with the reason.
    """
    shape = shape_name(space.config)
    sizes = table.dap_sizes(code=space.code, shape=shape)
    if not sizes:
        table.find(code=space.code, shape=shape, dap=1, preset=space.preset)
    splits, errors = [], []
    evaluations = _Evaluations(space, table, factors)
    for dap in sizes:
        if dap > space.system.gpus_per_node or space.system.gpus_per_node % dap:
            continue
        counts = table.find(code=space.code, shape=shape, dap=dap)
        try:
            blocks = _recomputed_blocks(counts, space)
        except BenchmarkError as error:
            errors.append(str(error))
            continue
        for layout in _layouts(space, num_gpus, dap):
            layout = replace(layout, recomputed_blocks=blocks)
            step = predict_step(
                counts,
                space.system,
                layout,
                factors,
                mean_iterations=space.config.data.max_recycling_iterations / 2,
            )
            splits += _with_evaluation(num_gpus, layout, step.total, evaluations)
    if not splits:
        reasons = "; ".join(errors) or f"no batch of {list(space.batches)} can be split over them"
        raise BenchmarkError(f"--gpus {num_gpus}: no split fits: {reasons}")
    return sorted(splits, key=lambda split: (split.seconds, split.layout.num_gpus))


def _recomputed_blocks(counts: StepCounts, space: SearchSpace) -> int:
    if counts.memory is None:
        return 0
    config = replace(space.config, local_batch_size=1)
    return plan_memory(counts, config, space.system).recomputed_blocks


def _layouts(space: SearchSpace, num_gpus: int, dap: int) -> Iterator[Layout]:
    """Yield the layouts without evaluation ranks: each batch over each number of groups."""
    for batch in space.batches:
        for groups in range(1, min(batch, num_gpus // dap) + 1):
            if batch % groups == 0:
                yield Layout(
                    code=space.code,
                    num_gpus=groups * dap,
                    dap=dap,
                    accumulation=batch // groups,
                )


class _Evaluations:
    """Times of an evaluation by number of ranks."""

    def __init__(self, space: SearchSpace, table: CountTable, factors: Factors) -> None:
        self.space = space
        self._counts = table.find(code=space.code, shape=shape_name(space.config), dap=1)
        self._factors = factors
        self._seconds: dict[int, float] = {}

    def of(self, layout: Layout) -> Evaluation:
        """Return the evaluation of a layout."""
        config = self.space.config
        ranks = min(CHAINS, layout.evaluation_ranks or layout.num_gpus)
        if ranks not in self._seconds:
            self._seconds[ranks] = evaluation_seconds(
                self._counts, self.space.system, layout, self._factors, crop=config.data.crop_size
            )
        return Evaluation(
            every_steps=config.evaluation.every_steps,
            seconds=self._seconds[ranks],
            is_concurrent=layout.evaluation_ranks > 0,
        )


def _with_evaluation(
    num_gpus: int, layout: Layout, step_seconds: float, evaluations: _Evaluations
) -> Iterator[Split]:
    """Yield a split for each number of evaluation nodes that fits."""
    space = evaluations.space
    samples = space.samples(layout.batch)
    for nodes in EVALUATION_NODES:
        ranks = nodes * space.system.gpus_per_node
        if layout.num_gpus + ranks > num_gpus:
            continue
        whole = replace(layout, num_gpus=layout.num_gpus + ranks, evaluation_ranks=ranks)
        evaluation = evaluations.of(whole)
        time = run_time(
            samples=samples.mean,
            batch=layout.batch,
            step_seconds=step_seconds,
            evaluation=evaluation,
            start=START_SECONDS,
        ).total
        yield Split(
            layout=whole,
            batch=layout.batch,
            step_seconds=step_seconds,
            evaluation_seconds=evaluation.seconds,
            seconds=time,
            gpu_hours=whole.num_gpus * time / 3600,
        )


def least_gpus(splits: Sequence[Split], seconds: float) -> Split | None:
    """Return the split with the fewest GPUs that reaches the target in time; None without one."""
    fitting = [split for split in splits if split.seconds <= seconds]
    return min(fitting, key=lambda split: (split.layout.num_gpus, split.seconds), default=None)


def fastest_by_size(splits: Sequence[Split]) -> list[Split]:
    """Return the splits that are faster than all with fewer or as many GPUs, by GPUs."""
    best: list[Split] = []
    for split in sorted(splits, key=lambda split: (split.layout.num_gpus, split.seconds)):
        if not best or split.seconds < best[-1].seconds:
            best.append(split)
    return best
