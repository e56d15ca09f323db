"""Exchange findings between the ranks, and measure the bandwidth of an all-reduce."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import Store

from benchmark.finding import FAIL, PASS, Finding
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.store import open_store, read_keys

MESSAGE_BYTES = {"cuda": 2**28, "cpu": 2**24}
"""Bytes of the all-reduce by device type: about the size of the gradients of the benchmark (373 MB)
and of the demo."""
REPEATS = 5
"""Timed all-reduces, in addition to the first, which opens connections. The median ignores it."""
LEAVE_SECONDS = 60.0
"""Limit for the first rank to wait until the others leave, as one of them may have died."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one rank found."""

    host: str
    findings: tuple[Finding, ...] = ()
    """Findings about its node. Only the first rank of a node has any."""

    def to_json(self) -> str:
        """Return the text from which `from_json` restores the answer."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Answer:
        """Restore an answer."""
        content = json.loads(text)
        findings = tuple(Finding(**values) for values in content["findings"])
        return cls(host=content["host"], findings=findings)


class Rendezvous:
    """The store in which the ranks publish their findings, and rank 0 whether to measure bandwidth.

    Raises ValueError if the first rank cannot be reached.
    """

    def __init__(self, launch: LaunchInfo, *, timeout_seconds: float) -> None:
        self._launch = launch
        self._timeout_seconds = timeout_seconds
        self._store: Store | None = None
        if launch.world_size > 1:
            self._store = dist.PrefixStore(
                "preflight", open_store(launch, timeout=timedelta(seconds=timeout_seconds))
            )

    def publish(self, answer: Answer) -> None:
        """Publish the answer of this rank."""
        if self._store is not None:
            self._store.set(f"found/{self._launch.rank}", answer.to_json())

    def collect(self, own: Answer) -> dict[int, Answer]:
        """Return the answers by rank of all that answered in time; called on the first rank."""
        answers = {0: own}
        if self._store is None:
            return answers
        writers = {f"found/{rank}": rank for rank in range(1, self._launch.world_size)}
        if not self._are_written(writers, self._timeout_seconds):
            writers = {key: rank for key, rank in writers.items() if self._store.check([key])}
        for key, rank in writers.items():
            answers[rank] = Answer.from_json(self._store.get(key))
        return answers

    def _are_written(self, writers: dict[str, int], timeout_seconds: float) -> bool:
        """Wait for the keys of `writers`, key -> rank. Return whether all exist in time."""
        try:
            read_keys(
                self._store, writers, self._launch, timeout=timedelta(seconds=timeout_seconds)
            )
        except ValueError:
            return False
        return True

    def decide(self, measures_bandwidth: bool) -> None:
        """Publish whether the ranks measure the bandwidth; called on the first rank."""
        if self._store is not None:
            self._store.set("measure", "yes" if measures_bandwidth else "no")

    def read_decision(self) -> bool:
        """Return the decision of the first rank; called on the other ranks.

        The limit is longer than that of the first rank, which waits for all answers. Raises
        ValueError if there is no decision in that time.
        """
        timeout = timedelta(seconds=2 * self._timeout_seconds + 60)
        values = read_keys(self._store, {"measure": 0}, self._launch, timeout=timeout)
        return values["measure"] == b"yes"

    def leave(self) -> None:
        """Leave; the first rank, which hosts the store, waits for the others."""
        if self._store is None:
            return
        self._store.set(f"left/{self._launch.rank}", "")
        if self._launch.rank == 0:
            self._are_written(
                {f"left/{rank}": rank for rank in range(1, self._launch.world_size)},
                LEAVE_SECONDS,
            )

    def all_reduce_gb_per_second(self, device: torch.device) -> float:
        """Return the 1e9 bytes per second that the slowest rank sends in an all-reduce.

        The message has MESSAGE_BYTES. All ranks return the same value.
        """
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        launch = self._launch
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("groups", self._store),
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timedelta(seconds=self._timeout_seconds),
        )
        try:
            message = torch.zeros(MESSAGE_BYTES[device.type] // 4, device=device)
            seconds = statistics.median(_timed_all_reduce(message) for _ in range(REPEATS + 1))
            slowest = torch.tensor([seconds], device=device)
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            # In a ring, a rank sends 2 (n - 1) / n of the message, which has 4 bytes per element.
            sent = 2 * (launch.world_size - 1) / launch.world_size * 4 * message.numel()
            return sent / slowest.item() / 1e9
        finally:
            dist.destroy_process_group()


def _timed_all_reduce(message: torch.Tensor) -> float:
    is_cuda = message.device.type == "cuda"
    dist.barrier()
    if is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    dist.all_reduce(message)
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def check_answers(answers: Mapping[int, Answer], launch: LaunchInfo) -> Finding:
    """Check that every rank answered. answers: by rank."""
    silent = sorted(set(range(launch.world_size)) - answers.keys())
    hosts = list(dict.fromkeys(answers[rank].host for rank in sorted(answers)))
    if not silent:
        return Finding(
            state=PASS,
            subject="answers",
            text=f"all {launch.world_size} ranks on {len(hosts)} nodes, {hosts[0]} to {hosts[-1]}",
        )
    nodes = sorted({rank // launch.ranks_per_node for rank in silent})
    text = (
        f"ranks {_shortened(silent)} did not answer (nodes number {_shortened(nodes)} of the job, "
        f"counted from 0); {', '.join(hosts[:8])}{', ...' if len(hosts) > 8 else ''} answered; "
        "check whether the others are up (sinfo -N), and exclude them by sbatch --exclude"
    )
    return Finding(state=FAIL, subject="answers", text=text)


def check_bandwidth(gb_per_second: float, least: float, *, backend: str) -> Finding:
    """Check that an all-reduce over all ranks is as fast as the configuration requires."""
    text = f"{gb_per_second:.3g} GB/s sent by each rank over {backend}, at least {least:g} expected"
    if gb_per_second >= least:
        return Finding(state=PASS, subject="all-reduce", text=text)
    remedy = (
        "look for a slow link or node (NCCL_DEBUG=INFO names the network in use), or correct "
        "MIN_ALL_REDUCE_GB_S"
    )
    return Finding(state=FAIL, subject="all-reduce", text=f"{text}; {remedy}")


def _shortened(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (
        f", ... ({len(numbers)} in all)" if len(numbers) > 8 else ""
    )
