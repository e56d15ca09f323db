"""Ranks that die or hang are found and named, and end the job.

A collective that a rank does not join waits for it, and what waits in a graph's replay is not even watched by the backend. So every
rank has threads of its own that leave a sign of life at the store every few seconds, and read that of the next rank in the ring: two
messages per rank and round, however many ranks there are. Who misses his neighbor for `lost_seconds`, or makes no progress himself
for `stuck_seconds`, writes a verdict to the store; every rank reads it within a round, and ends.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.leaving import leave_at_once
from openfold_opt.parallel.store import join_store

LOST_RANK_EXIT_CODE = 76
"""Exit code of a rank that ends because another one was lost."""

ROUNDS_TO_LOSS = 10
"""Signs of life within lost_seconds."""

GRACE_SECONDS = 5.0
"""For the main thread to end by itself once there is a verdict."""

_VERDICT = "verdict"


class LostRankError(RuntimeError):
    """Another rank died, failed or hangs; names it and its last step."""

    @property
    def rank(self) -> int | None:
        """The first rank that the message names; None if the launcher was lost."""
        found = re.search(r"\brank (\d+)", str(self))
        return int(found[1]) if found else None


class SilentHeartbeat:
    """Of a rank to which nobody listens."""

    def note(self, *, activity: str, step: int | None = None) -> None:
        """As Heartbeat.note."""

    def report_failure(self, error: BaseException) -> None:
        """As Heartbeat.confess."""

    def explain(self) -> LostRankError | None:
        """Nobody is ever found guilty."""
        return None

    def close(self) -> None:
        """As Heartbeat.close."""


class Heartbeat(SilentHeartbeat):
    """This rank's sign of life, and its ear for the next rank's."""

    def __init__(
        self,
        context: ParallelContext,
        *,
        lost_seconds: float,
        stuck_seconds: float,
        on_failure_report: Callable[[str], None],
    ) -> None:
        """A collective call: every rank of the world starts to beat. on_failure_report: called once, in a thread, before the process ends.

        Raises ValueError if the store cannot be reached.
        """
        self._rank, self._size = context.world.rank, context.world.size
        self._has_store = context.launch.has_store
        self._round_seconds = lost_seconds / ROUNDS_TO_LOSS
        self._lost_seconds, self._stuck_seconds = lost_seconds, stuck_seconds
        self._on_failure_report = on_failure_report
        # a connection of its own: the one of the process groups is blocked while they wait
        self._store = join_store(context.launch, timeout=timedelta(seconds=lost_seconds))
        self._state: tuple[int, str, float] = (0, "setting up", time.monotonic())
        self._last_round = time.monotonic()
        self._neighbor: tuple[Any, float] = (None, time.monotonic())
        self._failure_report: str | None = None
        self._has_failure_report, self._is_closing = threading.Event(), threading.Event()
        # set by either of the two: what the judge waits for
        self._must_act = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._beat, "heartbeat"), (self._monitor, "heartbeat judge"))
        ]
        for thread in self._threads:
            thread.start()

    def note(self, *, activity: str, step: int | None = None) -> None:
        """Say what this rank does now; step: the last optimizer step that was begun. Costs nothing, so say it often."""
        self._state = (self._state[0] if step is None else step, activity, time.monotonic())

    def report_failure(self, error: BaseException) -> None:
        """This rank fails by itself: the others shall know why, and this one be left to end as it does."""
        step, activity, _ = self._state
        self.close()
        self._publish(
            f"rank {self._rank} on {socket.gethostname()} failed at step {step} ({activity}): {type(error).__name__}: {error}"
        )
        if self._rank == 0 and not self._has_store:
            # the verdict lives in this process: the others must have time to read it
            time.sleep(2.0 * self._round_seconds)

    def explain(self) -> LostRankError | None:
        """Why a collective failed, if a rank is found guilty soon; None if none is."""
        if self._is_closing.is_set() or not self._has_failure_report.wait(2.0 * self._lost_seconds):
            return None
        return LostRankError(self._failure_report)

    def close(self) -> None:
        """Take leave, so that this rank is not missed from now on, and join the threads.

        A second call does nothing. The beating thread hangs only if the store has fallen silent; then
        it is left behind, and the process must end through `leaving.leave`.
        """
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._must_act.set()
        beating, monitoring = self._threads
        beating.join(
            timeout=GRACE_SECONDS if self._has_failure_report.is_set() else self._lost_seconds
        )
        # it calls nothing that blocks, but on_failure_report
        monitoring.join()

    def _beat(self) -> None:
        number = 0
        try:
            while not self._is_closing.wait(self._round_seconds if number else 0.0):
                number += 1
                step, activity, since = self._state
                self._store.set(
                    f"alive/{self._rank}",
                    json.dumps([number, step, activity, socket.gethostname()]),
                )
                self._listen()
                if time.monotonic() - since > self._stuck_seconds:
                    self._report_rank(self._find_laggards())
                self._last_round = time.monotonic()
            self._store.set(f"alive/{self._rank}", json.dumps("left"))
        except (dist.DistError, RuntimeError):
            # the judge decides what the silence of the store means
            return

    def _listen(self) -> None:
        """Read the verdict, if there is one, and the neighbor's sign of life."""
        if self._store.check([_VERDICT]):
            self._conclude(self._store.get(_VERDICT).decode())
        neighbor = (self._rank + 1) % self._size
        sign = self._read(neighbor)
        heard, when = self._neighbor
        now = time.monotonic()
        if self._was_suspended(since=self._last_round):
            when = now
        if sign != heard or sign == "left":
            self._neighbor = (sign, now)
        elif now - when > self._lost_seconds:
            self._report_rank(f"{_describe(neighbor, sign)} was not heard for {now - when:.0f} s")
        else:
            self._neighbor = (sign, when)

    def _was_suspended(self, *, since: float) -> bool:
        """Whether this process itself did nothing for long: a scheduler may stop a whole job for a while, and nobody is to blame then."""
        return time.monotonic() - since > 0.5 * self._lost_seconds

    def _read(self, rank: int) -> Any:
        key = f"alive/{rank}"
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def _find_laggards(self) -> str:
        """Who is at the earliest step, of those that are not done."""
        signs = {rank: self._read(rank) for rank in range(self._size)}
        known = {rank: sign for rank, sign in signs.items() if isinstance(sign, list)}
        earliest = min(sign[1] for sign in known.values())
        behind = [_describe(rank, sign) for rank, sign in known.items() if sign[1] == earliest][:4]
        return f"no progress for {self._stuck_seconds:.0f} s; furthest behind: {'; '.join(behind)}"

    def _report_rank(self, failure_report: str) -> None:
        self._conclude(self._publish(failure_report))

    def _publish(self, failure_report: str) -> str:
        """The first verdict counts: that one."""
        try:
            return self._store.compare_set(_VERDICT, "", failure_report).decode()
        except (dist.DistError, RuntimeError):
            return failure_report

    def _conclude(self, failure_report: str) -> None:
        with self._lock:
            if self._failure_report is None:
                self._failure_report = failure_report
        self._has_failure_report.set()
        self._must_act.set()

    def _monitor(self) -> None:
        """Ends the process after a verdict, and gives one if the store is silent. It sends nothing itself, so nothing can hold it up."""
        checked = time.monotonic()
        while not self._must_act.wait(self._round_seconds):
            if self._was_suspended(since=checked):
                self._last_round = time.monotonic()
            checked = time.monotonic()
            silent = checked - self._last_round
            if silent > self._lost_seconds:
                keeper = "the launcher" if self._has_store else "rank 0"
                step, _, _ = self._state
                self._conclude(
                    f"{keeper}, which keeps the store, was not heard for {silent:.0f} s; this rank is at step {step}"
                )
        if self._failure_report is None:
            return
        try:
            self._on_failure_report(self._failure_report)
        finally:
            # the main thread may be on its way out; if it waits in a collective it never will be
            if not self._is_closing.wait(GRACE_SECONDS):
                leave_at_once(LOST_RANK_EXIT_CODE)


def is_lost_connection(error: BaseException) -> bool:
    """Whether an exception looks like a collective whose other end went away, rather than like a failure of this rank."""
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(word in str(error) for word in ("gloo", "NCCL"))
    )


def _describe(rank: int, sign: Any) -> str:
    if not isinstance(sign, list):
        return f"rank {rank}, which never gave a sign of life,"
    _, step, activity, host = sign
    return f"rank {rank} on {host}, last at step {step} ({activity}),"
