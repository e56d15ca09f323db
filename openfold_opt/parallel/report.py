"""Who takes part in a run, in words."""

from __future__ import annotations

import socket

import torch
import torch.distributed as dist

from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.parallel.context import EVALUATE, ParallelContext


def describe_ranks(context: ParallelContext, device: torch.device) -> list[str]:
    """Lines on world, axes, hosts, backends and evaluation; a collective call of all ranks."""
    if context.world.size == 1:
        return []
    places = gather_objects((context.role, socket.gethostname(), str(device)), context.world)
    hosts: dict[str, list[int]] = {}
    for rank, (_, host, _) in enumerate(places):
        hosts.setdefault(host, []).append(rank)
    evaluating = [rank for rank, (role, _, _) in enumerate(places) if role == EVALUATE]
    num_training = context.world.size - len(evaluating)
    backend = dist.get_backend(context.world.process_group)
    lines = [
        f"{context.world.size} ranks on {len(hosts)} hosts, backend {backend}, meeting at "
        f"{context.launch.master_address}:{context.launch.master_port}"
        + (f", start {context.launch.attempt + 1}" if context.launch.attempt else "")
    ]
    lines += [
        f"  {host}: ranks {_ranges(ranks)} on {', '.join(sorted({places[rank][2] for rank in ranks}))}"
        for host, ranks in hosts.items()
    ]
    lines.append(
        f"training: {num_training} ranks = data {num_training // context.dap.size} x dap {context.dap.size}"
        + (
            ""
            if context.dap.size == 1 or context.dap.overlaps
            else ", collectives waited for at once"
        )
    )
    if evaluating:
        groups = len(context.bridge.evaluators)
        lines.append(
            f"evaluation: ranks {_ranges(evaluating)} in {groups} groups, while the others train (weights travel by gloo)"
        )
    else:
        lines.append("evaluation: the ranks that train, in turn with training")
    return lines


def _ranges(ranks: list[int]) -> str:
    """0-3,8: runs of neighboring numbers."""
    starts = [rank for rank in ranks if rank - 1 not in ranks]
    stops = [rank for rank in ranks if rank + 1 not in ranks]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, stops))
