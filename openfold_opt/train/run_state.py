"""What a checkpoint holds, and how a run takes it up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.model.weights import RESUMABLE_KEY, check_weights, file_sha256
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object, broadcast_tensor
from openfold_opt.train.checkpoint import CheckpointError, Snapshot, load_file
from openfold_opt.train.optimizer import OptimizerConfig, adam_state_dict
from openfold_opt.train.step import TrainStep

FORMAT_VERSION = 3

SAVED_TENSORS = ("values", "exp_avg", "exp_avg_sq", "average")
"""Of WeightState."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What must be the same when a run is resumed, or it would be another run."""

    seed: int
    config_hash: str
    global_batch_size: int
    data_checksum: str | None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is. There is no state of random generators: every draw is a function of seed, step and place in the stream."""

    step: int = 0
    """Optimiser steps done."""
    samples_seen: int = 0
    lddt_ca: float | None = None
    """Result of the evaluation right after this step, if there was one."""
    stream_states: tuple[StreamState | None, ...] = ()
    """What the steps have used of the stream of samples of each rank of the data axis; None, or no entry: what these steps use in order."""
    is_in_order: bool = True
    """Whether all streams were used in order without leaving anything out, so that the number of steps says it all."""
    accumulation: int = 1
    """Micro-batches of a step, which the streams are counted in."""
    is_target_reached: bool = False


def take_snapshot(train_step: TrainStep, progress: Progress, identity: RunIdentity, *, facts: Mapping[str, Any]) -> Snapshot:
    """Copies of everything that a step changes, on the CPU; facts: what else is to be remembered, JSON values."""
    buffer, state = train_step.buffer, train_step.weight_state()
    return Snapshot(
        step=progress.step,
        samples_seen=progress.samples_seen,
        lddt_ca=progress.lddt_ca,
        facts={
            "format_version": FORMAT_VERSION,
            **asdict(identity),
            "num_steps": float(state.num_steps),
            "num_updates": float(state.num_updates),
            "stream_states": [
                None if stream is None else {"low": stream.low, "above": list(stream.above)} for stream in progress.stream_states
            ],
            "is_in_order": progress.is_in_order,
            "accumulation": progress.accumulation,
            "is_target_reached": progress.is_target_reached,
            **facts,
        },
        layout=buffer.layout(),
        tensors={name: getattr(state, name).to("cpu", copy=True) for name in SAVED_TENSORS},
    )


def restore_run(train_step: TrainStep, snapshot: Snapshot, identity: RunIdentity, *, path: Path) -> Progress:
    """Put everything back as it was when the checkpoint was written, bit for bit.

    Raises CheckpointError if it is of another run: other seed, configuration, batch or data.
    """
    facts = snapshot.facts
    if facts.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {facts.get('format_version')}, expected {FORMAT_VERSION}; "
            "resume it with the version that wrote it, or choose another output directory"
        )
    for key, expected in asdict(identity).items():
        if facts[key] != expected:
            raise CheckpointError(
                f"{path} is of a run with {key}={facts[key]}, this one has {expected}; give the same preset, seed "
                "and data to resume it, or choose another output directory"
            )
    state, buffer = train_step.weight_state(), train_step.buffer
    try:
        for name in SAVED_TENSORS:
            buffer.load(getattr(state, name), snapshot.views(name))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    buffer.refresh_compute_copy()
    state.num_steps.fill_(facts["num_steps"])
    state.num_updates.fill_(facts["num_updates"])
    streams = (None if stream is None else StreamState(**stream) for stream in facts["stream_states"])
    return Progress(
        step=snapshot.step, samples_seen=snapshot.samples_seen, lddt_ca=snapshot.lddt_ca, stream_states=tuple(streams),
        is_in_order=facts["is_in_order"], accumulation=facts["accumulation"], is_target_reached=facts["is_target_reached"],
    )  # fmt: skip


def published_form(snapshot: Snapshot, *, learning_rate: float, optimizer: OptimizerConfig) -> dict[str, Any]:
    """The form {iteration, alphafold_state_dict, optimizer_state_dict} that the benchmark's checkpoints have, and the running average."""
    first, second = snapshot.views("exp_avg"), snapshot.views("exp_avg_sq")
    return {
        "iteration": snapshot.step,
        RESUMABLE_KEY: {name: view.clone() for name, view in snapshot.views("values").items()},
        "optimizer_state_dict": adam_state_dict(
            optimizer, first, second, num_steps=snapshot.facts["num_steps"], learning_rate=learning_rate
        ),
        "weight_average_state_dict": {name: view.clone() for name, view in snapshot.views("average").items()},
    }


def initialize_from_file(train_step: TrainStep, path: Path, *, expected_sha256: str | None) -> str:
    """Start a fresh run from published weights; returns the file's SHA-256.

    Takes a plain state dict, or the resumable form, of which Adam's moments and step count are restored
    too. The running average starts empty. Raises CheckpointError for another SHA-256 than expected, a
    file that is no checkpoint, or tensors that are missing, extra or misshapen.
    """
    if not path.is_file():
        raise CheckpointError(f"initial checkpoint {path} does not exist; expected a file written by torch.save")
    sha256 = file_sha256(path)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise CheckpointError(
            f"initial checkpoint {path} has SHA-256 {sha256}, expected {expected_sha256}; "
            "download it again (python -m data_prep download)"
        )
    content = load_file(path)
    if RESUMABLE_KEY not in content:
        content = {RESUMABLE_KEY: content}
    _restore_weights(train_step, content, path=path)
    return sha256


def _restore_weights(train_step: TrainStep, content: dict[str, Any], *, path: Path) -> None:
    tensors = content[RESUMABLE_KEY]
    if not isinstance(tensors, Mapping):
        raise CheckpointError(f"{path}: {RESUMABLE_KEY} is a {type(tensors).__name__}, expected names with tensors")
    strange = [name for name, tensor in tensors.items() if not (isinstance(tensor, Tensor) and tensor.is_floating_point())]
    if strange:
        raise CheckpointError(f"{path}: {strange[0]!r} and {len(strange) - 1} more are no tensors of real numbers; expected a state dict")
    try:
        check_weights(train_step.model, tensors, source=path.name)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    train_step.buffer.load(train_step.buffer.values, tensors)
    train_step.buffer.refresh_compute_copy()
    if "optimizer_state_dict" in content:
        try:
            train_step.optimizer.load_state_dict(content["optimizer_state_dict"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(
                f"{path}: optimizer_state_dict is not Adam's for this model ({type(error).__name__}: {error}); expected "
                "param_groups, and a state with step, exp_avg and exp_avg_sq for each parameter"
            ) from error


@torch.no_grad()
def share_state(train_step: TrainStep, axis: AxisGroup) -> None:
    """Give every rank the weights, moments and average of the first one."""
    if axis.size == 1:
        return
    optimizer, average = train_step.optimizer, train_step.weight_average
    for tensor in (train_step.buffer.values, optimizer.exp_avg, optimizer.exp_avg_sq, average.average):
        broadcast_tensor(tensor, axis)
    counts = broadcast_object((float(optimizer.num_steps), float(average.num_updates)), axis)
    optimizer.num_steps.fill_(counts[0])
    average.num_updates.fill_(counts[1])
