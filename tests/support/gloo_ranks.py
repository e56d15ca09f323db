"""Helpers to run a function on several gloo processes on this machine."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from openfold_opt.parallel.context import ParallelConfig, ParallelContext, build_parallel_context
from openfold_opt.parallel.launch import LaunchInfo
from tests.support.fork_server import fork_server


def run_on_ranks(
    body: Callable[..., Any], num_ranks: int, *args: Any, dap_size: int = 1
) -> list[Any]:
    """Run body(context, *args) on every rank and return the results in rank order.

    The results must be picklable.
    """
    queue = fork_server().SimpleQueue()
    ranks = mp.start_processes(
        _one_rank,
        args=(num_ranks, dap_size, free_port(), queue, body, args),
        nprocs=num_ranks,
        join=False,
        start_method="forkserver",
    )
    results: dict[int, Any] = {}
    # Read results before joining: a rank does not exit while its result fills the pipe.
    while not ranks.join(timeout=0.05):
        while not queue.empty():
            results.update([queue.get()])
    while not queue.empty():
        results.update([queue.get()])
    return [results[rank] for rank in range(num_ranks)]


def _one_rank(
    rank: int, num_ranks: int, dap_size: int, port: int, queue: Any, body: Callable, args: tuple
) -> None:
    torch.set_num_threads(1)
    launch = LaunchInfo(
        rank=rank, world_size=num_ranks, local_rank=rank, ranks_per_node=num_ranks, master_port=port
    )
    # Small tensors are divided into chunks, too.
    config = ParallelConfig(dap_size=dap_size, dap_min_chunk_bytes=0, timeout_seconds=120)
    context: ParallelContext = build_parallel_context(config, launch, device=torch.device("cpu"))
    try:
        queue.put((rank, body(context, *args)))
    finally:
        context.close()


def free_port() -> int:
    """Return a free TCP port on the loopback interface."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch_info(rank: int, port: int, **changes) -> LaunchInfo:
    """Return how a rank of three on this machine was started."""
    return LaunchInfo(
        **(
            {
                "rank": rank,
                "world_size": 3,
                "local_rank": rank,
                "ranks_per_node": 3,
                "master_port": port,
            }
            | changes
        )
    )


def launch_variables(rank: int, num_ranks: int, *, port: int) -> dict[str, str]:
    """Return the environment variables of a launcher for a rank of one node."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def torchrun(num_ranks: int) -> list[str]:
    """Return the start of a command that runs a program on several ranks of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    return [*launcher, "--standalone", f"--nproc-per-node={num_ranks}"]
