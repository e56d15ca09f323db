"""What a checkpoint holds, and how a run takes it up again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.model.weights import RESUMABLE_KEY, check_weights, file_sha256
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object, broadcast_tensor
from openfold_opt.train.checkpoint import CheckpointError, load_file
from openfold_opt.train.step import TrainStep

FORMAT_VERSION = 2


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
    """What the steps have used of each rank's stream of samples; None, or no entry: what these steps use in order."""


def checkpoint_content(
    train_step: TrainStep, progress: Progress, identity: RunIdentity, *, learning_rate: float
) -> dict[str, Any]:
    """A checkpoint in the published form {iteration, alphafold_state_dict, optimizer_state_dict}, and keys of ours."""
    average = train_step.weight_average
    return {
        "iteration": progress.step,
        RESUMABLE_KEY: train_step.buffer.split_copies(train_step.buffer.values),
        "optimizer_state_dict": train_step.optimizer.state_dict(learning_rate=learning_rate),
        "weight_average_state_dict": average.state_dict(),
        "weight_average_num_updates": int(average.num_updates.item()),
        "format_version": FORMAT_VERSION,
        "samples_seen": progress.samples_seen,
        "lddt_ca": progress.lddt_ca,
        "seed": identity.seed,
        "config_hash": identity.config_hash,
        "global_batch_size": identity.global_batch_size,
        "data_checksum": identity.data_checksum,
        "stream_states": [
            None if state is None else {"low": state.low, "above": list(state.above)} for state in progress.stream_states
        ],
    }


def restore_run(train_step: TrainStep, content: dict[str, Any], identity: RunIdentity, *, path: Path) -> Progress:
    """Put everything back as it was when the checkpoint was written, bit for bit.

    Raises CheckpointError if it is of another run: other seed, configuration, batch or data.
    """
    if content.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {content.get('format_version')}, expected {FORMAT_VERSION}; "
            "resume it with the version that wrote it, or choose another output directory"
        )
    for key in ("seed", "config_hash", "global_batch_size", "data_checksum"):
        found, expected = content[key], getattr(identity, key)
        if found != expected:
            raise CheckpointError(
                f"{path} is of a run with {key}={found}, this one has {expected}; give the same preset, seed, "
                "data and number of ranks to resume it, or choose another output directory"
            )
    _restore_weights(train_step, content, path=path)
    train_step.weight_average.load_state_dict(
        content["weight_average_state_dict"], num_updates=content["weight_average_num_updates"]
    )
    states = (None if state is None else StreamState(**state) for state in content["stream_states"])
    return Progress(
        step=content["iteration"],
        samples_seen=content["samples_seen"],
        lddt_ca=content["lddt_ca"],
        stream_states=tuple(states),
    )


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
