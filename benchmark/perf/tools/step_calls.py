"""Time the PyTorch calls of a training step on a CPU, and what the step takes besides their work.

Operators are timed inside a step, where tensors and code are rarely in the nearest caches. A chain
of equal calls takes less than half of the time.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.perf.tools.call_trace import CallGroup, TimedCall, grouped, record_calls
from benchmark.perf.tools.meta_step import MetaStep
from benchmark.perf.tools.pass_counts import PassCounts, count_pass
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.dropout import DropoutState
from openfold_opt.parallel.context import ParallelConfig, ParallelContext
from openfold_opt.train.build_run import build_model, build_plans
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer
from openfold_opt.train.process_memory import keep_freed_memory, paused_garbage_collection
from openfold_opt.train.synthetic_features import synthetic_batch

_CPU = torch.device("cpu")
_UNTIMED_STEPS = 2
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class StepVersion:
    """A version of a preset: the same depth, thus nearly the same calls, with less work."""

    sample: dict[str, int]
    """Sizes of a sample; empty: those of the preset."""
    channels: int | None
    """Most channels of any tensor; None: those of the preset."""
    repeats: int
    """Steps in each of _ROUNDS rounds, in which the versions alternate."""


VERSIONS = (
    StepVersion(
        sample={"crop_size": 4, "max_msa_clusters": 1, "max_extra_msa": 1, "max_templates": 1},
        channels=8,
        repeats=10,
    ),
    StepVersion(
        sample={"crop_size": 8, "max_msa_clusters": 2, "max_extra_msa": 3, "max_templates": 1},
        channels=16,
        repeats=8,
    ),
    StepVersion(
        sample={"crop_size": 16, "max_msa_clusters": 6, "max_extra_msa": 8, "max_templates": 2},
        channels=32,
        repeats=5,
    ),
    StepVersion(
        sample={"crop_size": 32, "max_msa_clusters": 14, "max_extra_msa": 23, "max_templates": 3},
        channels=64,
        repeats=3,
    ),
    StepVersion(sample={}, channels=None, repeats=1),
)
"""A small one, that of `middle`, and three between them in equal ratios."""
SHARDED_VERSIONS = VERSIONS[2:4]


@dataclass(frozen=True, kw_only=True)
class StepCalls:
    """A version of a step without recycling."""

    calls: list[CallGroup]
    """With the time of each call."""
    seconds: list[float]
    """Times of whole steps, without timing their calls."""
    waited_share: float
    """Of the time of these steps, in which this process did not run: others had its core."""


def time_step_calls(config: RunConfig) -> list[StepCalls]:
    """Time steps with float32 and the kernels of a configuration on the CPU, in all VERSIONS."""
    # Training does this too.
    keep_freed_memory()
    steps = [_build(version_of(config, version)) for version in VERSIONS]
    times: list[list[float]] = [[] for _ in VERSIONS]
    ran = [0.0] * len(VERSIONS)
    # A step with timed calls follows the whole steps of each round.
    timed: list[list[list[TimedCall]]] = [[] for _ in VERSIONS]
    with paused_garbage_collection():
        for _ in range(_ROUNDS):
            for index, (step, version) in enumerate(zip(steps, VERSIONS, strict=True)):
                for number in range(_UNTIMED_STEPS + version.repeats):
                    started, used = time.perf_counter(), time.process_time()
                    step.run()
                    if number >= _UNTIMED_STEPS:
                        ran[index] += time.process_time() - used
                        times[index].append(time.perf_counter() - started)
                timed[index].append(record_calls(step.run))
    return [
        StepCalls(
            calls=grouped(runs),
            seconds=seconds,
            waited_share=max(0.0, 1.0 - share / sum(seconds)),
        )
        for runs, seconds, share in zip(timed, times, ran, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class ShardedStep:
    """A version of a step that all ranks compute together."""

    counts: PassCounts
    seconds: list[float]


def time_sharded_steps(config: RunConfig, context: ParallelContext) -> list[ShardedStep]:
    """Time steps that are sharded over the ranks of a DAP group, on the CPU."""
    keep_freed_memory()
    parallel = ParallelConfig(dap_size=context.dap.size, dap_chunks=1)
    found = []
    with paused_garbage_collection():
        for version in SHARDED_VERSIONS:
            sharded = dataclasses.replace(version_of(config, version), parallel=parallel)
            step = _build(sharded, context)
            seconds = []
            for _ in range(_UNTIMED_STEPS + _ROUNDS * version.repeats):
                started = time.perf_counter()
                step.run()
                seconds.append(time.perf_counter() - started)
            found.append(
                ShardedStep(counts=count_pass(sharded, 0)[0], seconds=seconds[_UNTIMED_STEPS:])
            )
    return found


def version_of(config: RunConfig, version: StepVersion) -> RunConfig:
    """Return a version of a configuration, without recycling."""
    data = dataclasses.replace(config.data, max_recycling_iterations=0, **version.sample)
    model = config.model if version.channels is None else narrowed(config.model, version.channels)
    return dataclasses.replace(config, model=model, data=data, local_batch_size=1)


def narrowed(config: Any, channels: int) -> Any:
    """Return the configuration of a model or a part of it with at most some channels."""
    changes = {}
    for name, value in vars(config).items():
        if name.startswith("c_"):
            changes[name] = min(value, channels)
        elif dataclasses.is_dataclass(value):
            changes[name] = narrowed(value, channels)
    return dataclasses.replace(config, **changes)


def _build(config: RunConfig, context: ParallelContext | None = None) -> MetaStep:
    """Build a step on the CPU, with values; without a context, of a rank alone."""
    model = build_model(config, seed=1, device=_CPU)
    plan, _ = build_plans(config, context or ParallelContext.alone(), _CPU)
    slots = torch.arange(config.local_batch_size)
    features = synthetic_batch(config.data, batch_size=config.local_batch_size, num_passes=1)
    return MetaStep(
        model=model,
        buffer=ParameterBuffer(model),
        plan=plan,
        batch=FeatureBatch.from_features(features),
        dropout=DropoutState(seed=1, step=1, slots=slots) if config.use_dropout else None,
        loss=AlphaFoldLoss(config.loss),
    )
