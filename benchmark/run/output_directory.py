"""Ownership of an output directory, and the state of its run.

A live run holds a lock (protein/directory_lock.py), which is released however the process ends.

run.json has the state of the run (run/state_file.py).

run.reserve occupies space until the run ends, so that run.json can be written even if the disk is
full.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Literal

from benchmark.command_line import BenchmarkError
from benchmark.run.run_clock import RunDurations
from benchmark.run.state_file import STATE_FILE, Failure, RunState, read_state, write_state
from openfold_opt.protein.directory_lock import LOCK_FILE, LockError, take_lock
from openfold_opt.protein.replace_file import TEMPORARY_SUFFIX

RESERVE_FILE = "run.reserve"
RESERVE_BYTES = 32 * 1024
"""More than run.json needs with the traceback of a failure."""
FIRST_LOG = "mlperf.log"
CONTINUED_LOG = "mlperf_continued_{}.log"
POWER_FOLDER = "power"
"""Folder for the readings of a power meter, which may start before the run."""


class OutputDirectory:
    """An output directory whose lock this process holds.

    Args:
        path: the directory, which is created if it does not exist.
        identity: values that must not change when a run is resumed, such as the preset and the
            checksum of the data. A difference is a BenchmarkError that names it.
        seed: the requested seed; None means that of the run that is resumed, else new_seed.
        new_seed: the seed of a new run if no seed is requested.
        command: the command line that continues the run.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: Mapping[str, str | None],
        seed: int | None,
        new_seed: int,
        command: str | None = None,
    ) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise BenchmarkError(f"output directory {path} is a file; name another one")
        _refuse_foreign_files(path)
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = take_lock(path, name=f"output directory {path}")
        except LockError as error:
            raise BenchmarkError(str(error)) from error
        try:
            state = read_state(path)
            self.num_resumptions = self._resumptions(state)
            self.seed = new_seed if seed is None else seed
            if state is not None and self.continued:
                self.seed = _continued_seed(path, state, identity=identity, seed=seed)
            self._state = RunState(
                status="running" if self.continued else "starting",
                continued=self.continued,
                num_resumptions=self.num_resumptions,
                seed=self.seed,
                identity=identity,
                resumable=self.continued,
                command=command,
                phase=None if state is None or not self.continued else state.phase,
                completed_phases=()
                if state is None or not self.continued
                else state.completed_phases,
            )
            self._previous = state
            self._is_marked = False
            # The threads of the checkpoint writer and the heartbeat also change the state.
            self._state_lock = Lock()
            if not self.continued:
                self._write_state()
            self._reserve_space()
        except BaseException:
            self._lock.close()
            raise

    def _resumptions(self, state: RunState | None) -> int:
        """Return how often the run was resumed, including by this process."""
        if state is None:
            return 0
        if state.status == "finished":
            raise BenchmarkError(
                f"output directory {self.path} holds a finished run "
                f"({state.outcome or 'no outcome'}); name another directory, or remove this "
                "one. To train its weights further, give the other directory and "
                f"--init-checkpoint {shlex.quote(str(self.path))}"
            )
        return state.num_resumptions + 1 if state.resumable else 0

    @property
    def continued(self) -> bool:
        """Whether an earlier process of this run ended after it had written a checkpoint."""
        return self.num_resumptions > 0

    @property
    def log_path(self) -> Path:
        """The MLPerf log of this process: mlperf.log, or mlperf_continued_<n>.log."""
        if not self.continued:
            return self.path / FIRST_LOG
        return self.path / CONTINUED_LOG.format(self.num_resumptions)

    def mark_running(self) -> None:
        """Record that the run can be resumed from now on. Count a resumption."""
        with self._state_lock:
            if self._is_marked:
                return
            self._is_marked = True
            # The last checkpoint may become complete after the run has failed.
            status = "running" if self._state.status == "starting" else self._state.status
            self._state = replace(self._state, status=status, resumable=True)
            self._write_state()

    def mark_finished(self, *, outcome: str, clock: RunDurations | None = None) -> None:
        """Record the outcome of the run. The directory accepts no further run.

        outcome: "success" or "target not reached".
        """
        with self._state_lock:
            self._release_space()
            self._state = replace(
                self._state, status="finished", resumable=False, outcome=outcome, clock=clock
            )
            self._write_state()

    def mark_phase(self, name: str) -> None:
        """Record the phase that the run is in."""
        with self._state_lock:
            self._state = replace(self._state, phase=name)
            self._write_state()

    def mark_phase_complete(self, name: str) -> None:
        """Record that a phase has ended; its last checkpoint is saved."""
        with self._state_lock:
            completed = tuple(dict.fromkeys((*self._state.completed_phases, name)))
            self._state = replace(self._state, completed_phases=completed)
            self._write_state()

    def mark_stopped_after_phase(self) -> None:
        """Record that the process ended with its phase. Another process continues the run."""
        self._mark_ended("phase complete")

    def mark_failed(self, error: Failure) -> None:
        """Record the error that ended the run."""
        self._mark_ended("failed", error)

    def mark_preempted(self) -> None:
        """Record that a signal stopped the run after a checkpoint."""
        self._mark_ended("preempted")

    def _mark_ended(
        self,
        status: Literal["failed", "preempted", "phase complete"],
        error: Failure | None = None,
    ) -> None:
        with self._state_lock:
            if self._state.status == "finished":
                return
            self._release_space()
            if self._previous is not None and self.continued and not self._is_marked:
                # The run was refused before its training began: it does not count as resumed.
                self._state = replace(self._previous, error=None)
            self._state = replace(
                self._state,
                status=status,
                resumable=self._is_marked or self.continued,
                error=error or self._state.error,
            )
            self._write_state()

    def close(self) -> None:
        """Release the lock."""
        self._release_space()
        self._lock.close()

    def _reserve_space(self) -> None:
        """Raises OSError, which is also recorded in run.json, if there is not enough space."""
        try:
            with open(self.path / RESERVE_FILE, "wb") as file:
                file.write(b"\0" * RESERVE_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(self.path / RESERVE_FILE)
            # Imported here because it loads torch, which readers of a directory do not need.
            from benchmark.run.failure import describe_failure

            self.mark_failed(describe_failure(error, step=None))
            raise

    def _release_space(self) -> None:
        (self.path / RESERVE_FILE).unlink(missing_ok=True)

    def _write_state(self) -> None:
        write_state(self.path, self._state)


def was_resumed(log: Path) -> bool:
    """Return whether another process resumed the run of this log and wrote a further log."""
    return log.name == FIRST_LOG and any(log.parent.glob(CONTINUED_LOG.format("*")))


def _refuse_foreign_files(path: Path) -> None:
    """Raises BenchmarkError if a directory without a run contains files."""
    if not path.is_dir() or (path / STATE_FILE).exists():
        return
    # A start that ended before run.json was written leaves the others.
    expected = (LOCK_FILE, RESERVE_FILE, STATE_FILE + TEMPORARY_SUFFIX, POWER_FOLDER)
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in expected)
    if foreign:
        raise BenchmarkError(
            f"output directory {path} holds files that do not belong to a run "
            f"({', '.join(foreign[:3])}); name a new directory"
        )


def describe_restart(path: Path) -> str:
    """Return what the same command does after a run in this directory ended early."""
    state = read_state(path)
    if state is not None and state.resumable:
        return "the same command resumes from the newest checkpoint"
    return "there is no checkpoint yet, so the same command starts from the beginning"


def _continued_seed(
    path: Path, state: RunState, *, identity: Mapping[str, str | None], seed: int | None
) -> int:
    """Return the seed of a run that is resumed. Raises BenchmarkError if it is another run."""
    if state.seed is None:
        raise BenchmarkError(
            f"{path / STATE_FILE} has no seed; expected the state of a run: name another directory"
        )
    recorded: dict[str, str | int | None] = {**state.identity}
    given: dict[str, str | int | None] = {**identity}
    if seed is not None:
        recorded["seed"], given["seed"] = state.seed, seed
    # What the user named comes before the hash of the whole configuration.
    keys = sorted(recorded.keys() | given.keys(), key=lambda key: (key == "config_hash", key))
    for key in keys:
        if recorded.get(key) != given.get(key):
            raise BenchmarkError(
                f"output directory {path} holds an unfinished run with {key} "
                f"{recorded.get(key)!r}, this one has {given.get(key)!r}; repeat the first "
                "command, or name another directory"
            )
    return state.seed
