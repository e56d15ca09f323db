"""Several ranks: groups that share a chain (DAP), and groups with different chains (replicas)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch

from openfold_opt.parallel.context import (
    ParallelConfig,
    ParallelContext,
    build_parallel_context,
)
from openfold_opt.parallel.heartbeat import Heartbeat, SilentHeartbeat
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.store import read_keys

TIMEOUT_SECONDS = 7 * 24 * 3600
"""Limit of a collective. Ranks wait for each other while one reads deep alignments, and the
heartbeat finds lost ranks much earlier."""


def split_of_ranks(launch: LaunchInfo, *, dap: int | None, replicas: int | None) -> tuple[int, int]:
    """Return (ranks that share a chain, groups with different chains).

    Args:
        launch: number of ranks.
        dap: value of `--dap`; None: all ranks of a replica.
        replicas: value of `--replicas`; None: 1, or as many as `--dap` leaves.

    Raises:
        ValueError: the product is not the number of ranks.
    """
    world = launch.world_size
    if dap is None and replicas is None:
        return world, 1
    if replicas is None:
        replicas = max(world // (dap or 1), 1)
    if dap is None:
        dap = max(world // replicas, 1)
    if dap < 1 or replicas < 1 or dap * replicas != world:
        raise ValueError(
            f"--dap {dap} x --replicas {replicas} need {dap * replicas} ranks, but {world} were "
            f"started; start them with torchrun --nproc-per-node {max(dap * replicas, 1)} -m "
            "openfold_opt.predict ..., or change --dap or --replicas"
        )
    return dap, replicas


def connect(launch: LaunchInfo, *, dap: int, device: torch.device) -> ParallelContext:
    """Connect all ranks. The axis "dap" shares a chain, the axis "data" has the replicas."""
    config = ParallelConfig(dap_size=dap, timeout_seconds=TIMEOUT_SECONDS)
    return build_parallel_context(config, launch, device=device)


def start_heartbeat(
    context: ParallelContext, *, on_lost_rank: Callable[[str], None]
) -> SilentHeartbeat:
    """Start the detection of ranks that die. All ranks must call this.

    A rank that makes no progress is not an error: a pass over a long chain takes hours.

    on_lost_rank: called in a thread with a description before the process exits with code 76.
    """
    if context.world.size == 1:
        return SilentHeartbeat()
    return Heartbeat(
        context,
        lost_seconds=ParallelConfig().heartbeat_seconds,
        stuck_seconds=float("inf"),
        on_failure_report=on_lost_rank,
    )


def deal_out(costs: Sequence[float], replicas: int) -> list[list[int]]:
    """Return the indices of the chains of each replica.

    The chain with the largest cost goes first, each to the replica with the least work so far.
    """
    loads = [(0.0, replica) for replica in range(replicas)]
    chains: list[list[int]] = [[] for _ in range(replicas)]
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        load, replica = heapq.heappop(loads)
        chains[replica].append(index)
        heapq.heappush(loads, (load + costs[index], replica))
    return chains


def wait_for_end(context: ParallelContext) -> None:
    """Let rank 0 wait until every other rank has called this function.

    Replicas end at different times, so this does not use a collective. The launcher ends all ranks
    when one exits with an error; therefore rank 0, whose exit code counts, exits last.
    """
    if context.world.size == 1:
        return
    assert context.store is not None
    rank = context.world.rank
    if rank:
        context.store.set(f"predicted/{rank}", "")
        return
    keys = {f"predicted/{other}": other for other in range(1, context.world.size)}
    read_keys(context.store, keys, context.launch, timeout=timedelta(seconds=TIMEOUT_SECONDS))
