"""The key-value store of a run, which all ranks connect to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import timedelta

import torch.distributed as dist

from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.waiting import Wait, wait_interruptibly

CONNECT_SECONDS = 1.0
"""Timeout of one connection attempt; attempts are repeated until the timeout of the call."""
RETRY_SECONDS = 0.2
SHORTEST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.01, 0.25


def open_store(launch: LaunchInfo, *, timeout: timedelta) -> dist.Store:
    """Connect to the store of the run.

    Use the store of torchrun if there is one, since it outlives every rank. Otherwise rank 0 starts
    a store. Keys are prefixed with the number of the start, so that a restarted job does not see
    old keys. While rank 0 does not respond, a message is written to stderr every 30 s and signals
    are handled.

    Raises:
        ValueError: the store does not respond in time.
    """
    if launch.rank == 0 and not launch.has_store:
        return _build(launch, timeout, lambda wait: _serve(launch, timeout, wait))
    return connect_store(launch, timeout=timeout)


def connect_store(launch: LaunchInfo, *, timeout: timedelta) -> dist.Store:
    """Open another connection to the store of `open_store`."""
    return _build(launch, timeout, lambda wait: _connect(launch, timeout, wait))


def _build(
    launch: LaunchInfo, timeout: timedelta, body: Callable[[Wait], dist.Store | None]
) -> dist.Store:
    try:
        store = wait_interruptibly(
            body, who=f"rank {launch.rank}", timeout_seconds=timeout.total_seconds()
        )
    except (TimeoutError, dist.DistError, RuntimeError) as error:
        raise ValueError(_unreachable(launch, error)) from error
    return dist.PrefixStore(f"start {launch.attempt}", store)


def read_keys(
    store: dist.Store, writers: Mapping[str, int], launch: LaunchInfo, *, timeout: timedelta
) -> dict[str, bytes]:
    """Wait until other ranks have written keys, and return the values.

    Every 30 s, a message on stderr names the missing ranks. Signals are handled meanwhile.

    Args:
        store: the store of the run.
        writers: the rank that writes each key.
        launch: rank of this process and address of the store.
        timeout: maximum time to wait.

    Raises:
        ValueError: a key was not written in time; names the missing ranks.
    """

    def read(wait: Wait[dict[str, bytes]]) -> dict[str, bytes]:
        missing = list(writers)
        pause = SHORTEST_POLL_SECONDS
        while not wait.is_over.is_set():
            missing = [key for key in missing if not store.check([key])]
            if not missing:
                return {key: store.get(key) for key in writers}
            wait.target = f"{_ranks({writers[key] for key in missing})} at {_address(launch)}"
            wait.is_over.wait(pause)
            pause = min(2.0 * pause, LONGEST_POLL_SECONDS)
        return {}

    try:
        return wait_interruptibly(
            read, who=f"rank {launch.rank}", timeout_seconds=timeout.total_seconds()
        )
    except TimeoutError as error:
        raise ValueError(
            f"{error}; start all {launch.world_size} ranks, or correct WORLD_SIZE"
        ) from error
    except (dist.DistError, RuntimeError) as error:
        raise ValueError(_unreachable(launch, error)) from error


def wait_for_all(store: dist.Store, launch: LaunchInfo, *, timeout: timedelta) -> None:
    """Wait until all ranks have called this function; messages name the missing ranks.

    Call it before functions of torch.distributed, which wait for other ranks without messages and
    without handling signals.

    Raises:
        ValueError: a rank has not called it in time.
    """
    store.set(f"ready/{launch.rank}", "")
    if launch.rank == 0:
        others = {f"ready/{rank}": rank for rank in range(1, launch.world_size)}
        read_keys(store, others, launch, timeout=timeout)
        store.set("all ready", "")
    else:
        read_keys(store, {"all ready": 0}, launch, timeout=timeout)


def _serve(launch: LaunchInfo, timeout: timedelta, wait: Wait[dist.Store]) -> dist.Store:
    """Start the store in this process.

    The store connects to itself, which fails if MASTER_ADDR belongs to another host.
    """
    wait.target = f"its own store at {_address(launch)} (MASTER_ADDR must be this host)"
    return dist.TCPStore(
        launch.master_address,
        launch.master_port,
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
    )


def _connect(launch: LaunchInfo, timeout: timedelta, wait: Wait[dist.Store]) -> dist.Store | None:
    """Connect when something listens at the address; None if the caller has stopped waiting."""
    address = (launch.master_address, launch.master_port)
    while not wait.is_over.is_set():
        try:
            # Probe with a socket: TCPStore writes a warning for each failed attempt.
            socket.create_connection(address, timeout=CONNECT_SECONDS).close()
            break
        except OSError as error:
            wait.target = f"{_host_name(launch)} at {_address(launch)} ({_reason(launch, error)})"
            wait.is_over.wait(RETRY_SECONDS)
    if wait.is_over.is_set():
        return None
    wait.target = (
        f"{_host_name(launch)} at {_address(launch)} (something listens there, but does not answer)"
    )
    return dist.TCPStore(*address, is_master=False, timeout=timeout, wait_for_workers=False)


def _unreachable(launch: LaunchInfo, error: BaseException) -> str:
    return (
        f"rank {launch.rank} cannot reach the store at {_address(launch)}: "
        f"{str(error).splitlines()[0]}; choose another MASTER_PORT, "
        "or check which rank did not start"
    )


def _reason(launch: LaunchInfo, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name {launch.master_address} cannot be resolved; correct MASTER_ADDR"
    return error.strerror or str(error)


def _host_name(launch: LaunchInfo) -> str:
    """Name the process that hosts the store."""
    return "the launcher's store" if launch.has_store else "rank 0"


def _address(launch: LaunchInfo) -> str:
    host = f"[{launch.master_address}]" if ":" in launch.master_address else launch.master_address
    return f"{host}:{launch.master_port}"


def _ranks(ranks: set[int]) -> str:
    shown = ", ".join(map(str, sorted(ranks)[:8]))
    if len(ranks) > 8:
        shown += f", ... ({len(ranks)} in total)"
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}"
