"""Send the decision of rank 0 to all ranks before a run: its seed, or that it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta

from torch.distributed import Store

from benchmark.command_line import BenchmarkError
from openfold_opt.parallel.launch import MAX_PORT, LaunchInfo
from openfold_opt.parallel.store import open_store, read_keys

PORT_OFFSET = 1
"""The handshake uses the port after MASTER_PORT, because the store of the run is not open yet."""
KEY = "decision"
ANSWER = "answer"
"""Keys of the store: the decision of rank 0, and ANSWER/<rank> for the answers of the others."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What rank 0 decided: the seed of the run, or why it refused the run."""

    seed: int = 0
    """0 if the run is refused."""
    refusal: str | None = None
    is_complete: bool = False
    """Whether there is nothing to do, because the requested phase is complete."""


def broadcast_decision(
    launch: LaunchInfo, decision: Decision, *, timeout_seconds: int
) -> list[bool]:
    """Send a decision from rank 0 to all other ranks and return their answers in rank order.

    Without other ranks it returns an empty list. A rank that has not answered is named every 30 s.

    Raises BenchmarkError if a rank does not answer in time.
    """
    if launch.world_size == 1:
        return []
    rendezvous = _rendezvous(launch)
    store = _store(rendezvous, timeout_seconds)
    store.set(KEY, json.dumps(asdict(decision)))
    # This process hosts the store, so it must not close it before all ranks have the decision.
    writers = {f"{ANSWER}/{rank}": rank for rank in range(1, launch.world_size)}
    answers = _read(store, writers, rendezvous, timeout_seconds)
    return [json.loads(answer) for answer in answers.values()]


def receive_decision(
    launch: LaunchInfo, answer: Callable[[Decision], bool], *, timeout_seconds: int
) -> Decision:
    """Return the decision of rank 0, after sending the result of answer(decision) back.

    Raises BenchmarkError if no decision comes in time.
    """
    rendezvous = _rendezvous(launch)
    store = _store(rendezvous, timeout_seconds)
    decision = Decision(**json.loads(_read(store, {KEY: 0}, rendezvous, timeout_seconds)[KEY]))
    store.set(f"{ANSWER}/{launch.rank}", json.dumps(answer(decision)))
    return decision


def _rendezvous(launch: LaunchInfo) -> LaunchInfo:
    port = launch.master_port + PORT_OFFSET
    if port > MAX_PORT:
        raise BenchmarkError(
            f"MASTER_PORT={launch.master_port}; expected at most {MAX_PORT - PORT_OFFSET}, "
            "as the next port is used too"
        )
    # The launcher hosts no store at this port, so rank 0 does.
    return replace(launch, master_port=port, has_store=False)


def _store(rendezvous: LaunchInfo, timeout_seconds: int) -> Store:
    try:
        return open_store(rendezvous, timeout=timedelta(seconds=timeout_seconds))
    except ValueError as error:
        raise BenchmarkError(f"{error} (the port is MASTER_PORT + {PORT_OFFSET})") from error


def _read(
    store: Store, writers: dict[str, int], rendezvous: LaunchInfo, timeout_seconds: int
) -> dict[str, bytes]:
    try:
        return read_keys(store, writers, rendezvous, timeout=timedelta(seconds=timeout_seconds))
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
