"""All ranks compare facts before they work together: what differs is named, with both values and
both ranks, on every rank.
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
"""Shown for a fact that one of two ranks does not have."""
MAX_FACTS, MAX_RANKS = 6, 4
"""Differing facts of a rank, and ranks, that a message shows."""
FAREWELL_SECONDS = 10.0
"""For the other ranks to read the verdict, before a first rank that keeps the store ends."""


def require_same_facts(
    facts: Mapping[str, str],
    store: dist.Store,
    launch: LaunchInfo,
    *,
    timeout: timedelta,
    problem: str | None = None,
) -> None:
    """A call of all ranks: return if all have the same facts, and none has a problem.

    facts: values by name. problem: why this rank cannot take part, whatever its facts are. The
    first rank must keep the store after this call, as the others may still read the result.

    Raises ValueError on every rank, which names the ranks, what differs between them and both
    values, or their problems; and if a rank does not come in time.
    """
    store = dist.PrefixStore("same facts", store)
    if launch.rank == 0:
        verdict = _monitor(facts, store, launch, timeout=timeout, problem=problem)
    else:
        complaint = _compare_with_first(facts, store, launch, timeout=timeout, problem=problem)
        store.set(f"complaint/{launch.rank}", complaint)
        # longer than the first rank waits: if a rank is missing, the verdict names it
        longer = timeout + timedelta(seconds=FAREWELL_SECONDS)
        verdict = read_keys(store, {"verdict": 0}, launch, timeout=longer)["verdict"].decode()
        store.set(f"heard/{launch.rank}", "")
    if verdict:
        raise ValueError(verdict)


def _monitor(facts, store, launch: LaunchInfo, *, timeout: timedelta, problem: str | None) -> str:
    """The first rank's part: publish its facts, collect what the others complain of, publish the
    verdict; "" if all agree.
    """
    store.set("host", socket.gethostname())
    store.set("facts", json.dumps(facts))
    store.set("digest", _digest(facts))
    others = range(1, launch.world_size)
    try:
        keys = {f"complaint/{rank}": rank for rank in others}
        found = read_keys(store, keys, launch, timeout=timeout)
    except ValueError as error:
        if not isinstance(error.__cause__, TimeoutError):
            raise  # the store is gone
        complaints = [str(error)]
    else:
        complaints = [text.decode() for text in found.values() if text]
    if problem is not None:
        complaints.insert(0, f"rank 0 on {socket.gethostname()}: {problem}")
    verdict = "; ".join(complaints[:MAX_RANKS])
    if len(complaints) > MAX_RANKS:
        verdict += f"; and {len(complaints) - MAX_RANKS} more ranks"
    store.set("verdict", verdict)
    if verdict and not launch.has_store:
        _wait_until_heard(store, launch)
    return verdict


def _wait_until_heard(store: dist.Store, launch: LaunchInfo) -> None:
    """The store is in this process: let the others read the verdict, but do not wait for one that
    died meanwhile.
    """
    heard = {f"heard/{rank}": rank for rank in range(1, launch.world_size)}
    try:
        read_keys(store, heard, launch, timeout=timedelta(seconds=FAREWELL_SECONDS))
    except ValueError:
        return


def _compare_with_first(
    facts, store, launch: LaunchInfo, *, timeout: timedelta, problem: str | None
) -> str:
    """What this rank complains of; "" if it has the facts of the first rank."""
    keys = {"digest": 0}
    digest = read_keys(store, keys, launch, timeout=timeout)["digest"].decode()
    if digest == _digest(facts) and problem is None:
        return ""
    here = f"rank {launch.rank} on {socket.gethostname()}"
    if problem is not None:
        return f"{here}: {problem}"
    keys = {"facts": 0, "host": 0}
    found = read_keys(store, keys, launch, timeout=timeout)
    first = f"rank 0 on {found['host'].decode()}"
    return _describe(json.loads(found["facts"]), facts, first=first, here=here)


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
