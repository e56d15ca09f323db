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

from benchmark.perf.tools.call_trace import CallGroup, time_calls
from benchmark.perf.tools.meta_step import MetaStep
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.dropout import DropoutState
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_plans
from openfold_opt.train.config import RunConfig
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer
from openfold_opt.train.process_memory import keep_freed_memory, paused_garbage_collection
from openfold_opt.train.synthetic_features import synthetic_batch

_CPU = torch.device("cpu")
_SMALL_SAMPLE = {"crop_size": 4, "max_msa_clusters": 1, "max_extra_msa": 1, "max_templates": 1}
_SMALL_CHANNELS = 8
_UNTIMED_STEPS = 2
_SMALL_STEPS = 30
_TRACED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """Seconds of repeated steps."""

    forward: list[float]
    """Forward pass and losses."""
    backward: list[float]
    """Backward pass, and the collection of the gradients."""


@dataclass(frozen=True, kw_only=True)
class StepCalls:
    """Calls of a step of a preset without recycling, and of a small one.

    The small step has samples of four residues and a model of the same depth with eight channels:
    the same calls, with little work.
    """

    calls: list[CallGroup]
    """With the time of each call."""
    small_calls: list[CallGroup]
    small_seconds: StepSeconds
    """Times of whole small steps, without timing their calls."""


def time_step_calls(config: RunConfig) -> StepCalls:
    """Time the calls of a step with float32 and the kernels of a configuration, on the CPU."""
    # Training does this too.
    keep_freed_memory()
    data = dataclasses.replace(config.data, max_recycling_iterations=0)
    config = dataclasses.replace(config, data=data)
    small_data = dataclasses.replace(data, **_SMALL_SAMPLE)
    small = _build(
        dataclasses.replace(
            config, model=narrowed(config.model), data=small_data, local_batch_size=1
        )
    )
    with paused_garbage_collection():
        small_seconds = _time(small, _SMALL_STEPS)
        small_calls = time_calls(small.run, repeats=_TRACED_STEPS)
        step = _build(config)
        step.run()
        calls = time_calls(step.run, repeats=_TRACED_STEPS)
    return StepCalls(calls=calls, small_calls=small_calls, small_seconds=small_seconds)


def narrowed(config: Any) -> Any:
    """Return the configuration of a model or a part of it with few channels everywhere."""
    changes = {}
    for name, value in vars(config).items():
        if name.startswith("c_"):
            changes[name] = min(value, _SMALL_CHANNELS)
        elif dataclasses.is_dataclass(value):
            changes[name] = narrowed(value)
    return dataclasses.replace(config, **changes)


def _build(config: RunConfig) -> MetaStep:
    """Build a step on the CPU, with values."""
    model = build_model(config, seed=1, device=_CPU)
    plan, _ = build_plans(config, ParallelContext.alone(), _CPU)
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


def _time(step: MetaStep, repeats: int) -> StepSeconds:
    seconds = StepSeconds(forward=[], backward=[])
    for _ in range(_UNTIMED_STEPS + repeats):
        started = time.perf_counter()
        loss = step.loss(step.forward(), step.batch.at_pass(0)).loss
        middle = time.perf_counter()
        loss.backward()
        step.buffer.collect_gradients()
        seconds.forward.append(middle - started)
        seconds.backward.append(time.perf_counter() - middle)
    return StepSeconds(
        forward=seconds.forward[_UNTIMED_STEPS:], backward=seconds.backward[_UNTIMED_STEPS:]
    )
