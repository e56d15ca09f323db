"""What the first rank decides before the run and all ranks must know: the seed, or that there is no run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore

from benchmark.errors import BenchmarkError
from openfold_opt.parallel.launch import LaunchInfo

PORT_OFFSET = 1
"""The agreement has a port of its own: the run's own meeting place is not open yet."""
KEY = "decision"
ANSWER = "answer"


def announce(launch: LaunchInfo, decision: dict[str, Any], *, timeout_seconds: int) -> list[Any]:
    """First rank: tell every other rank; returns their answers in rank order when all have answered. Alone, it does nothing."""
    if launch.world_size == 1:
        return []
    store = _store(launch, timeout_seconds)
    store.set(KEY, json.dumps(decision))
    # the store lives in this process: it must not end before the last rank has read it
    answers = [f"{ANSWER}/{rank}" for rank in range(1, launch.world_size)]
    store.wait(answers)
    return [json.loads(store.get(name)) for name in answers]


def listen(launch: LaunchInfo, answer: Callable[[dict[str, Any]], Any], *, timeout_seconds: int) -> dict[str, Any]:
    """Every other rank: the decision of the first one, after `answer` was called with it and its result sent back."""
    store = _store(launch, timeout_seconds)
    decision = json.loads(store.get(KEY))
    store.set(f"{ANSWER}/{launch.rank}", json.dumps(answer(decision)))
    return decision


def _store(launch: LaunchInfo, timeout_seconds: int) -> TCPStore:
    port = launch.master_port + PORT_OFFSET
    try:
        return TCPStore(
            launch.master_address,
            port,
            is_master=launch.rank == 0,
            timeout=timedelta(seconds=timeout_seconds),
            wait_for_workers=False,
        )
    except (DistError, RuntimeError) as error:
        raise BenchmarkError(
            f"rank {launch.rank} cannot meet the others at {launch.master_address}:{port} (MASTER_PORT + {PORT_OFFSET}): "
            f"{str(error).splitlines()[0]}; choose another MASTER_PORT, or look for a rank that did not start"
        ) from error
