"""What the first rank decides before the run and all ranks must know: the seed, or that there is no run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore

from openfold_opt.parallel.launch import LaunchInfo

PORT_OFFSET = 1
"""The agreement has a port of its own: the run's own meeting place is not open yet."""
KEY = "decision"
COUNTER = "heard"


def announce(launch: LaunchInfo, decision: dict[str, Any], *, timeout_seconds: int) -> None:
    """First rank: tell every other rank, and return when all have heard. Alone, it does nothing."""
    if launch.world_size == 1:
        return
    store = _store(launch, timeout_seconds)
    store.set(KEY, json.dumps(decision))
    # the store lives in this process: it must not end before the last rank has read it
    store.wait([f"{COUNTER}/{rank}" for rank in range(1, launch.world_size)])


def listen(launch: LaunchInfo, *, timeout_seconds: int) -> dict[str, Any]:
    """Every other rank: the decision of the first one."""
    store = _store(launch, timeout_seconds)
    decision = json.loads(store.get(KEY))
    store.set(f"{COUNTER}/{launch.rank}", "1")
    return decision


def _store(launch: LaunchInfo, timeout_seconds: int) -> TCPStore:
    return TCPStore(
        launch.master_address,
        launch.master_port + PORT_OFFSET,
        is_master=launch.rank == 0,
        timeout=timedelta(seconds=timeout_seconds),
        wait_for_workers=False,
    )
