"""What the first rank decides before the run and all ranks must know: the seed, or that there is no run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from torch.distributed import Store

from benchmark.errors import BenchmarkError
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.store import open_store

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


def _store(launch: LaunchInfo, timeout_seconds: int) -> Store:
    beside = replace(launch, master_port=launch.master_port + PORT_OFFSET, has_store=False)
    try:
        return open_store(beside, timeout=timedelta(seconds=timeout_seconds))
    except ValueError as error:
        raise BenchmarkError(f"{error} (the port is MASTER_PORT + {PORT_OFFSET})") from error
