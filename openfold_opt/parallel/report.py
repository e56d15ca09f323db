"""Description of the ranks of a run for the log."""

from __future__ import annotations

import socket

import torch
import torch.distributed as dist

from openfold_opt.parallel.broadcast import gather_objects
from openfold_opt.parallel.context import EVALUATE, ParallelContext


def describe_ranks(context: ParallelContext, device: torch.device) -> list[str]:
    """Return log lines on the world, the axes, hosts, backend and evaluation.

    All ranks must call this function.
    """
    if context.world.size == 1:
        return []
    ranks_info = gather_objects((context.role, socket.gethostname(), str(device)), context.world)
    hosts: dict[str, list[int]] = {}
    for rank, (_, host, _) in enumerate(ranks_info):
        hosts.setdefault(host, []).append(rank)
    evaluating = [rank for rank, (role, _, _) in enumerate(ranks_info) if role == EVALUATE]
    num_training = context.world.size - len(evaluating)
    backend = dist.get_backend(context.world.process_group)
    lines = [
        f"{context.world.size} ranks on {len(hosts)} hosts, backend {backend}, rendezvous at "
        f"{context.launch.master_address}:{context.launch.master_port}"
        + (f", start {context.launch.attempt + 1}" if context.launch.attempt else "")
    ]
    for host, ranks in hosts.items():
        devices = sorted({ranks_info[rank][2] for rank in ranks})
        lines.append(f"  {host}: ranks {_ranges(ranks)} on {', '.join(devices)}")
    dap_size = context.dap.size
    lines.append(
        f"training: {num_training} ranks = data {num_training // dap_size} x dap {dap_size}"
        + ("" if dap_size == 1 or context.dap.overlaps else ", collectives not overlapped")
    )
    if evaluating:
        groups = len(context.bridge.evaluators)
        lines.append(
            f"evaluation: ranks {_ranges(evaluating)} in {groups} groups, concurrent with training "
            "(weights sent over gloo)"
        )
    else:
        lines.append("evaluation: on the training ranks, between training intervals")
    return lines


def _ranges(ranks: list[int]) -> str:
    """Format consecutive ranks as ranges: "0-3,8"."""
    starts = [rank for rank in ranks if rank - 1 not in ranks]
    stops = [rank for rank in ranks if rank + 1 not in ranks]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, stops))
