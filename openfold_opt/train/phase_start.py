"""Find the phase in which a run starts or continues, before there are process groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import Store

from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.store import read_keys
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore, FoundCheckpoint
from openfold_opt.train.errors import CheckpointError, SetupError
from openfold_opt.train.phases import Phase


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseStart:
    """The phase that comes next."""

    phase: Phase
    newest: FoundCheckpoint | None
    """The checkpoint to resume from, on the first rank; None: a new run, or another rank."""
    step: int
    """Finished optimizer steps of the run."""


def find_phase_start(
    phases: Sequence[Phase],
    checkpoints: CheckpointStore,
    *,
    config_hash: str,
    launch: LaunchInfo,
    store: Store | None,
    number: int,
    timeout: timedelta,
    warn: Callable[[str], None],
) -> PhaseStart:
    """Return the phase of the newest complete checkpoint, which the first rank reads.

    A collective operation of all ranks, over the store.

    Args:
        phases: all phases of the run.
        checkpoints: those of the run.
        config_hash: of the whole run.
        launch: this rank.
        store: the store of the run; None for a single process.
        number: of calls before this one.
        timeout: how long the other ranks wait for the first one.
        warn: receives a message for each damaged checkpoint.

    Raises:
        SetupError: there are checkpoints, but none is complete; on every rank.
    """
    newest: FoundCheckpoint | None = None
    answer: dict[str, int | str] = {}
    if launch.rank == 0:
        try:
            checkpoints.remove_temporaries()
            newest = checkpoints.load_newest(warn=warn)
            answer = _position(newest, num_phases=len(phases), config_hash=config_hash)
        except (ValueError, OSError) as error:
            answer = {"error": str(error)}
    if store is not None:
        answer = _share(answer, f"phase start {number}", launch, store=store, timeout=timeout)
    if "error" in answer:
        raise SetupError(str(answer["error"]))
    return PhaseStart(phase=phases[int(answer["index"])], newest=newest, step=int(answer["step"]))


def _position(
    newest: FoundCheckpoint | None, *, num_phases: int, config_hash: str
) -> dict[str, int | str]:
    """Return the index of the phase and the finished steps of a checkpoint.

    Raises CheckpointError if it belongs to a run with other phases.
    """
    if newest is None:
        return {"index": 0, "step": 0}
    facts, step = newest.snapshot.facts, newest.snapshot.step
    index = facts.get("phase", {}).get("index", 0)
    # Other differences are reported when the checkpoint is restored.
    if max(index + 1, num_phases) > 1 and facts["config_hash"] != config_hash:
        raise CheckpointError(
            f"{newest.path} is of another preset or of one with other phases (config_hash "
            f"{facts['config_hash']}, this run has {config_hash}); use the preset that wrote it, "
            "or choose another output directory"
        )
    return {"index": index, "step": step}


def _share(
    answer: dict[str, int | str],
    key: str,
    launch: LaunchInfo,
    *,
    store: Store,
    timeout: timedelta,
) -> dict[str, int | str]:
    """Return the answer of the first rank on all ranks."""
    if launch.rank == 0:
        store.set(key, json.dumps(answer))
        return answer
    try:
        return json.loads(read_keys(store, {key: 0}, launch, timeout=timeout)[key])
    except ValueError as error:
        raise SetupError(str(error)) from error


def check_requested_phase(requested: Phase, start: PhaseStart) -> None:
    """Raise SetupError unless the requested phase is the one that comes next."""
    current = start.phase
    if requested.index == current.index:
        return
    if requested.index < current.index:
        raise SetupError(
            f"{requested.title} is complete: the run is in {current.title}, after step "
            f"{start.step}; request that phase"
        )
    raise SetupError(
        f"{requested.title} cannot start: the run is in {current.title}, after step {start.step}; "
        f"finish that phase first, or request it"
    )
