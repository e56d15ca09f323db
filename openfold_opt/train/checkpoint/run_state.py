"""Convert the state of a run to a checkpoint, and restore it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.model.published_weights.stored_tensors import AVERAGE_KEY
from openfold_opt.model.weights import RESUMABLE_KEY
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object, broadcast_tensor
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.optim.adam import OptimizerConfig, adam_state_dict
from openfold_opt.train.step import TrainStep

FORMAT_VERSION = 4
"""Version of the facts below; `restore_run` requires the same."""

SAVED_TENSORS = ("values", "exp_avg", "exp_avg_sq", "average")
"""Fields of WeightState that a checkpoint holds as tensors."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Values that must be equal when a run is resumed."""

    seed: int
    config_hash: str
    global_batch_size: int
    data_checksum: str | None


@dataclass(frozen=True, kw_only=True)
class PhaseProgress:
    """The phase of the next optimizer step."""

    index: int = 0
    """Of the phases of the run, from 0."""
    steps_before: int = 0
    """Optimizer steps of the run before the phase."""
    samples_before: int = 0
    """Samples seen before the phase."""
    best_lddt_ca: float | None = None
    """Highest lDDT-Ca of the evaluations of the phase; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a run.

    There is no state of random generators: every random number is a function of the seed, the step
    and the position in the sample stream.
    """

    step: int = 0
    """Finished optimizer steps."""
    samples_seen: int = 0
    lddt_ca: float | None = None
    """Result of the evaluation right after this step, if there was one."""
    stream_states: tuple[StreamState | None, ...] = ()
    """For each data-parallel rank, the positions of its sample stream that the steps have used.

    None or a missing entry means the first positions of the phase, those of its finished steps.
    """
    is_in_order: bool = True
    """Whether all streams were used in order and without skips; `step` then determines them."""
    accumulation: int = 1
    """Micro-batches per step. Stream positions count micro-batches."""
    is_target_reached: bool = False
    phase: PhaseProgress = PhaseProgress()

    def samples_at(self, step: int, *, global_batch_size: int) -> int:
        """Return the samples seen after a step of the current phase."""
        phase = self.phase
        return phase.samples_before + (step - phase.steps_before) * global_batch_size

    def at_next_phase(self) -> Progress:
        """Return the progress at the start of the phase after the current one.

        All samples of the current phase are used, so there is no state of sample streams.
        """
        return Progress(
            step=self.step,
            samples_seen=self.samples_seen,
            lddt_ca=self.lddt_ca,
            phase=PhaseProgress(
                index=self.phase.index + 1,
                steps_before=self.step,
                samples_before=self.samples_seen,
            ),
        )


def take_snapshot(
    train_step: TrainStep, progress: Progress, identity: RunIdentity, *, facts: Mapping[str, object]
) -> Snapshot:
    """Return a copy, on the CPU, of everything that a step changes.

    facts: further values to store; JSON must be able to represent them.
    """
    buffer, state = train_step.buffer, train_step.weight_state()
    return Snapshot(
        step=progress.step,
        samples_seen=progress.samples_seen,
        lddt_ca=progress.lddt_ca,
        facts={
            "format_version": FORMAT_VERSION,
            **asdict(identity),
            # Adam and the average have counters of their own: a skipped step does not count.
            "num_steps": float(state.num_steps),
            "num_updates": float(state.num_updates),
            "stream_states": [
                None if stream is None else {"low": stream.low, "above": list(stream.above)}
                for stream in progress.stream_states
            ],
            "is_in_order": progress.is_in_order,
            "accumulation": progress.accumulation,
            "is_target_reached": progress.is_target_reached,
            "phase": asdict(progress.phase),
            **facts,
        },
        layout=buffer.layout(),
        tensors={name: getattr(state, name).to("cpu", copy=True) for name in SAVED_TENSORS},
    )


def restore_run(
    train_step: TrainStep, snapshot: Snapshot, identity: RunIdentity, *, path: Path
) -> Progress:
    """Restore the state of a run from a checkpoint, bit for bit.

    Raises CheckpointError if the checkpoint belongs to a run with another seed, configuration,
    batch size or data set.
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
                f"{path} belongs to a run with {key}={facts[key]}, this one has {expected}; use "
                "the same preset, seed and data to resume it, or choose another output directory"
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
    streams = (
        None if stream is None else StreamState(**stream) for stream in facts["stream_states"]
    )
    return Progress(
        step=snapshot.step,
        samples_seen=snapshot.samples_seen,
        lddt_ca=snapshot.lddt_ca,
        stream_states=tuple(streams),
        is_in_order=facts["is_in_order"],
        accumulation=facts["accumulation"],
        is_target_reached=facts["is_target_reached"],
        phase=PhaseProgress(**facts["phase"]),
    )


def mlcommons_form(
    snapshot: Snapshot, *, learning_rate: float, optimizer: OptimizerConfig
) -> dict[str, Any]:
    """Return a snapshot in the form of MLCommons' initial checkpoint, plus the running average.

    That is a dict with the keys iteration, alphafold_state_dict and optimizer_state_dict. There is
    no average before the first update of the weights.
    """
    first, second = snapshot.views("exp_avg"), snapshot.views("exp_avg_sq")
    average = snapshot.views("average") if snapshot.facts["num_updates"] else None
    form = {
        "iteration": snapshot.step,
        RESUMABLE_KEY: {name: view.clone() for name, view in snapshot.views("values").items()},
        "optimizer_state_dict": adam_state_dict(
            optimizer,
            first,
            second,
            num_steps=snapshot.facts["num_steps"],
            learning_rate=learning_rate,
        ),
    }
    if average is not None:
        form[AVERAGE_KEY] = {name: view.clone() for name, view in average.items()}
    return form


@torch.no_grad()
def share_state(train_step: TrainStep, axis: AxisGroup) -> None:
    """Broadcast weights, moments, average and their counters from the first rank of the axis."""
    if axis.size == 1:
        return
    optimizer, average = train_step.optimizer, train_step.weight_average
    for tensor in (
        train_step.buffer.values,
        optimizer.exp_avg,
        optimizer.exp_avg_sq,
        average.average,
    ):
        broadcast_tensor(tensor, axis)
    counts = broadcast_object((float(optimizer.num_steps), float(average.num_updates)), axis)
    optimizer.num_steps.fill_(counts[0])
    average.num_updates.fill_(counts[1])
