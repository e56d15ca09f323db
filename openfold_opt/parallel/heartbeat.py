"""Detection of ranks that die or hang, which ends the job with a message that names them.

A collective waits for every rank, and the watchdog of the backend does not cover collectives in the
replay of a CUDA graph. Therefore each rank runs two threads. One writes a heartbeat to the store
every few seconds and reads the heartbeat of the next rank in the ring: two messages per rank and
round for any number of ranks. A rank whose neighbor is silent for `lost_seconds`, or that makes no
progress for `stuck_seconds`, posts a failure report to the store. Every rank reads the report
within one round and exits; the second thread enforces the exit.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.process_exit import exit_immediately
from openfold_opt.parallel.store import connect_store

LOST_RANK_EXIT_CODE = 76
"""Exit code of a rank that exits because another rank was lost."""

ROUNDS_TO_LOSS = 10
"""Number of heartbeats within lost_seconds."""

GRACE_SECONDS = 5.0
"""Time for the main thread to exit by itself after a failure report."""

_REPORT_KEY = "failure report"

Beat = list[int | str] | str | None
"""A heartbeat: [number, step, activity, host], "left" after the end, None before the first one."""


class LostRankError(RuntimeError):
    """Another rank died, failed or hangs; the message names it and its last step."""

    @property
    def rank(self) -> int | None:
        """The first rank in the message; None if the launcher was lost."""
        match = re.search(r"\brank (\d+)", str(self))
        return int(match[1]) if match else None


class SilentHeartbeat:
    """A heartbeat that does nothing, for a single process or with failure detection disabled."""

    def set_status(self, *, activity: str, step: int | None = None) -> None:
        """Do nothing; see Heartbeat.set_status."""

    def report_failure(self, error: BaseException) -> None:
        """Do nothing; see Heartbeat.report_failure."""

    def explain(self) -> LostRankError | None:
        """Return None; see Heartbeat.explain."""
        return None

    def close(self) -> None:
        """Do nothing; see Heartbeat.close."""


class Heartbeat(SilentHeartbeat):
    """Sends the heartbeat of this rank and monitors that of the next rank."""

    def __init__(
        self,
        context: ParallelContext,
        *,
        lost_seconds: float,
        stuck_seconds: float,
        on_failure_report: Callable[[str], None],
    ) -> None:
        """Start the heartbeat. All ranks of the world must call this.

        Args:
            context: ranks and store.
            lost_seconds: silence of a rank after which it counts as lost.
            stuck_seconds: time without progress after which a rank counts as stuck.
            on_failure_report: called once with the report, in a thread, before the process exits.

        Raises:
            ValueError: the store cannot be reached.
        """
        self._rank, self._size = context.world.rank, context.world.size
        self._has_store = context.launch.has_store
        self._round_seconds = lost_seconds / ROUNDS_TO_LOSS
        self._lost_seconds, self._stuck_seconds = lost_seconds, stuck_seconds
        self._on_failure_report = on_failure_report
        # Use a separate connection: that of the process groups is blocked while they wait.
        self._store = connect_store(context.launch, timeout=timedelta(seconds=lost_seconds))
        self._state: tuple[int, str, float] = (0, "setting up", time.monotonic())
        self._last_round = time.monotonic()
        self._neighbor: tuple[Beat, float] = (None, time.monotonic())
        self._failure_report: str | None = None
        self._has_failure_report, self._is_closing = threading.Event(), threading.Event()
        # Set together with either of the two events; the monitor waits for it.
        self._must_act = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._beat, "heartbeat"), (self._monitor, "heartbeat monitor"))
        ]
        for thread in self._threads:
            thread.start()

    def set_status(self, *, activity: str, step: int | None = None) -> None:
        """Record progress of this rank; this is cheap, so call it often.

        Args:
            activity: what this rank does now.
            step: the last optimizer step that was started; None keeps the previous one.
        """
        self._state = (self._state[0] if step is None else step, activity, time.monotonic())

    def report_failure(self, error: BaseException) -> None:
        """Report an error of this rank to the other ranks and stop the heartbeat.

        The caller is responsible for the exit of this process.
        """
        step, activity, _ = self._state
        self.close()
        self._publish(
            f"rank {self._rank} on {socket.gethostname()} failed at step {step} ({activity}): "
            f"{type(error).__name__}: {error}"
        )
        if self._rank == 0 and not self._has_store:
            # This process hosts the store. Give the other ranks time to read the report.
            time.sleep(2.0 * self._round_seconds)

    def explain(self) -> LostRankError | None:
        """Return why a collective failed; None without a failure report in 2 * lost_seconds."""
        if self._is_closing.is_set() or not self._has_failure_report.wait(2.0 * self._lost_seconds):
            return None
        return LostRankError(self._failure_report)

    def close(self) -> None:
        """Sign off, so that the other ranks do not report this one as lost, and join the threads.

        A second call does nothing. The heartbeat thread hangs only if the store does not respond.
        It is then abandoned, and the process must exit through `process_exit.exit_process`.
        """
        if self._is_closing.is_set():
            return
        self._is_closing.set()
        self._must_act.set()
        beating, monitoring = self._threads
        beating.join(
            timeout=GRACE_SECONDS if self._has_failure_report.is_set() else self._lost_seconds
        )
        # The monitor makes no blocking call except on_failure_report.
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
                self._check_others()
                if time.monotonic() - since > self._stuck_seconds:
                    self._post(self._describe_slowest_ranks())
                self._last_round = time.monotonic()
            self._store.set(f"alive/{self._rank}", json.dumps("left"))
        except (dist.DistError, RuntimeError):
            # The monitor handles a store that does not respond.
            return

    def _check_others(self) -> None:
        """Read the failure report, if there is one, and the heartbeat of the next rank."""
        if self._store.check([_REPORT_KEY]):
            self._accept(self._store.get(_REPORT_KEY).decode())
        neighbor = (self._rank + 1) % self._size
        beat = self._read(neighbor)
        last_beat, when = self._neighbor
        now = time.monotonic()
        if self._was_suspended(since=self._last_round):
            when = now
        if beat != last_beat or beat == "left":
            self._neighbor = (beat, now)
        elif now - when > self._lost_seconds:
            self._post(f"{_describe(neighbor, beat)} sent no heartbeat for {now - when:.0f} s")
        else:
            self._neighbor = (beat, when)

    def _was_suspended(self, *, since: float) -> bool:
        """Whether this process itself was stopped, for example because the job was suspended."""
        return time.monotonic() - since > 0.5 * self._lost_seconds

    def _read(self, rank: int) -> Beat:
        key = f"alive/{rank}"
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def _describe_slowest_ranks(self) -> str:
        """Name the ranks at the earliest step, among those that have not signed off."""
        beats = {rank: self._read(rank) for rank in range(self._size)}
        running = {rank: beat for rank, beat in beats.items() if isinstance(beat, list)}
        earliest = min(beat[1] for beat in running.values())
        slowest = [_describe(rank, beat) for rank, beat in running.items() if beat[1] == earliest]
        names = "; ".join(slowest[:4])
        return f"no progress for {self._stuck_seconds:.0f} s; furthest behind: {names}"

    def _post(self, failure_report: str) -> None:
        self._accept(self._publish(failure_report))

    def _publish(self, failure_report: str) -> str:
        """Write the report to the store, unless there is one, and return the one in the store."""
        try:
            return self._store.compare_set(_REPORT_KEY, "", failure_report).decode()
        except (dist.DistError, RuntimeError):
            return failure_report

    def _accept(self, failure_report: str) -> None:
        """Keep the first failure report and wake up the monitor."""
        with self._lock:
            if self._failure_report is None:
                self._failure_report = failure_report
        self._has_failure_report.set()
        self._must_act.set()

    def _monitor(self) -> None:
        """End the process after a failure report, and detect a store that does not respond.

        This thread sends nothing itself, so nothing can block it.
        """
        checked = time.monotonic()
        while not self._must_act.wait(self._round_seconds):
            if self._was_suspended(since=checked):
                self._last_round = time.monotonic()
            checked = time.monotonic()
            silent = checked - self._last_round
            if silent > self._lost_seconds:
                host = "the launcher" if self._has_store else "rank 0"
                step, _, _ = self._state
                self._accept(
                    f"{host}, which hosts the store, did not respond for {silent:.0f} s; "
                    f"this rank is at step {step}"
                )
        if self._failure_report is None:
            return
        try:
            self._on_failure_report(self._failure_report)
        finally:
            # The main thread may be exiting. If it waits in a collective, it never exits.
            if not self._is_closing.wait(GRACE_SECONDS):
                exit_immediately(LOST_RANK_EXIT_CODE)


def is_lost_connection(error: BaseException) -> bool:
    """Whether an exception indicates a lost connection and not a failure of this rank itself."""
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(word in str(error) for word in ("gloo", "NCCL"))
    )


def _describe(rank: int, beat: Beat) -> str:
    if not isinstance(beat, list):
        return f"rank {rank}, which never sent a heartbeat,"
    _, step, activity, host = beat
    return f"rank {rank} on {host}, last at step {step} ({activity}),"
