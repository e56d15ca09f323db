"""The key-value store at which the ranks meet."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist

from openfold_opt.parallel.launch import LaunchInfo


def open_store(launch: LaunchInfo, *, timeout: timedelta) -> dist.Store:
    """The run's store: torchrun's own where it has one, which outlives any rank, else one that this call starts in rank 0.

    Keys of one start of the job are apart from those of the next. Raises ValueError if nobody answers in time.
    """
    return _connect(launch, timeout, serve=launch.rank == 0 and not launch.has_store)


def join_store(launch: LaunchInfo, *, timeout: timedelta) -> dist.Store:
    """Another connection to the store that open_store opened."""
    return _connect(launch, timeout, serve=False)


def _connect(launch: LaunchInfo, timeout: timedelta, *, serve: bool) -> dist.Store:
    try:
        store = dist.TCPStore(
            launch.master_address, launch.master_port, is_master=serve, timeout=timeout, wait_for_workers=False
        )
    except (dist.DistError, RuntimeError) as error:
        raise ValueError(
            f"rank {launch.rank} cannot reach the store at {launch.master_address}:{launch.master_port}: {str(error).splitlines()[0]}; "
            "choose another MASTER_PORT, or look for a rank that did not start"
        ) from error
    return dist.PrefixStore(f"start {launch.attempt}", store)
