"""Check that all ranks have the same facts (configuration, code, data) before they work together.

Every rank gets an error that names each difference with both values and both ranks.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist

from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.store import read_keys

ABSENT = "nothing"
"""Shown as the value of a fact that a rank does not have."""
MAX_FACTS, MAX_RANKS = 6, 4
"""Maximum number of differing facts of a rank, and of ranks, in a message."""
ACKNOWLEDGE_SECONDS = 10.0
"""Time for the other ranks to read the result before a first rank that hosts the store exits."""


def require_same_facts(
    facts: Mapping[str, str],
    store: dist.Store,
    launch: LaunchInfo,
    *,
    timeout: timedelta,
    problem: str | None = None,
) -> None:
    """Return if all ranks have the same facts and none has a problem. All ranks must call this.

    The first rank must keep the store open after this call, because other ranks may still read the
    result.

    Args:
        facts: values by name.
        store: the store of the run.
        launch: rank of this process and address of the store.
        timeout: maximum time to wait for the other ranks.
        problem: why this rank cannot take part, independent of its facts; None if it can.

    Raises:
        ValueError: on every rank, if facts differ, a rank has a problem or a rank is missing. The
            message names the ranks and the differences or problems.
    """
    store = dist.PrefixStore("same facts", store)
    if launch.rank == 0:
        errors = _collect_errors(facts, store, launch, timeout=timeout, problem=problem)
    else:
        error = _compare_with_first(facts, store, launch, timeout=timeout, problem=problem)
        store.set(f"error/{launch.rank}", error)
        # Wait longer than the first rank: if a rank is missing, the result names it.
        longer = timeout + timedelta(seconds=ACKNOWLEDGE_SECONDS)
        errors = read_keys(store, {"errors": 0}, launch, timeout=longer)["errors"].decode()
        store.set(f"acknowledged/{launch.rank}", "")
    if errors:
        raise ValueError(errors)


def _collect_errors(
    facts: Mapping[str, str],
    store: dist.Store,
    launch: LaunchInfo,
    *,
    timeout: timedelta,
    problem: str | None,
) -> str:
    """Publish the facts of the first rank, collect the errors of all ranks and publish them.

    Returns:
        The joined errors; "" if all ranks agree.
    """
    store.set("host", socket.gethostname())
    store.set("facts", json.dumps(facts))
    store.set("digest", _digest(facts))
    others = range(1, launch.world_size)
    try:
        keys = {f"error/{rank}": rank for rank in others}
        received = read_keys(store, keys, launch, timeout=timeout)
    except ValueError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise  # The store does not respond.
        errors = [str(error)]
    else:
        errors = [text.decode() for text in received.values() if text]
    if problem is not None:
        errors.insert(0, f"rank 0 on {socket.gethostname()}: {problem}")
    joined = "; ".join(errors[:MAX_RANKS])
    if len(errors) > MAX_RANKS:
        joined += f"; and {len(errors) - MAX_RANKS} more ranks"
    store.set("errors", joined)
    if joined and not launch.has_store:
        _wait_until_acknowledged(store, launch)
    return joined


def _wait_until_acknowledged(store: dist.Store, launch: LaunchInfo) -> None:
    """Let the other ranks read the result from the store in this process.

    A rank that died meanwhile does not delay the exit by more than ACKNOWLEDGE_SECONDS.
    """
    keys = {f"acknowledged/{rank}": rank for rank in range(1, launch.world_size)}
    try:
        read_keys(store, keys, launch, timeout=timedelta(seconds=ACKNOWLEDGE_SECONDS))
    except ValueError:
        return


def _compare_with_first(
    facts: Mapping[str, str],
    store: dist.Store,
    launch: LaunchInfo,
    *,
    timeout: timedelta,
    problem: str | None,
) -> str:
    """Return the error of this rank; "" if it has the facts of the first rank and no problem."""
    keys = {"digest": 0}
    digest = read_keys(store, keys, launch, timeout=timeout)["digest"].decode()
    if digest == _digest(facts) and problem is None:
        return ""
    here = f"rank {launch.rank} on {socket.gethostname()}"
    if problem is not None:
        return f"{here}: {problem}"
    keys = {"facts": 0, "host": 0}
    received = read_keys(store, keys, launch, timeout=timeout)
    first = f"rank 0 on {received['host'].decode()}"
    return _describe(json.loads(received["facts"]), facts, first=first, here=here)


def _describe(
    first_facts: Mapping[str, str], facts: Mapping[str, str], *, first: str, here: str
) -> str:
    names = [name for name in {**first_facts, **facts} if first_facts.get(name) != facts.get(name)]
    lines = [
        f"{name} is {first_facts.get(name, ABSENT)} on {first}, {facts.get(name, ABSENT)} on {here}"
        for name in names[:MAX_FACTS]
    ]
    more = f"; and {len(names) - MAX_FACTS} more differences" if len(names) > MAX_FACTS else ""
    return (
        f"the ranks differ: {'; '.join(lines)}{more}. "
        "All ranks must have the same code, configuration and data"
    )


def _digest(facts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
