"""Who owns an output directory: nobody yet, a live run, a dead one that may be resumed, or a finished one.

A live run holds a lock that the kernel gives back when the process ends, however it ends, so a directory
left by `kill -9` is told from one in use without any guess about process numbers or ages. It is a POSIX
record lock, which forked worker processes do not inherit: none that outlives its parent can keep it.

run.json says how far the run came:

    starting -> running -> finished

`starting` is before the first checkpoint: nothing is left of the training, so the next run starts afresh.
`running` without the lock is a dead run: the next run continues it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO, Any

from benchmark.errors import BenchmarkError

STATE_FILE = "run.json"
LOCK_FILE = "run.lock"
FIRST_LOG = "mlperf.log"
CONTINUED_LOG = "mlperf_continued_{}.log"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers."""
POWER_FOLDER = "power"
"""Readings of a site's power meter: it may begin to write them before the run begins."""


class OutputDirectory:
    """An output directory while its run holds it.

    identity: what must be the same when a dead run is continued (preset, data checksum, ...), JSON values;
    a difference is a BenchmarkError that names it. A seed that is None takes the recorded one.
    """

    def __init__(self, path: Path, *, identity: dict[str, Any], seed: int | None, new_seed: int) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise BenchmarkError(f"output directory {path} is a file; name another one")
        _refuse_foreign_files(path)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(path)
        try:
            state = _read_state(path)
            self.num_resumptions = self._resumptions(state)
            if self.num_resumptions:
                _check_identity(path, state, identity=identity, seed=seed)
                self.seed = int(state["seed"])
            else:
                self.seed = new_seed if seed is None else seed
            self._state = {
                "status": "starting" if not self.num_resumptions else "running",
                "continued": self.num_resumptions > 0,
                "num_resumptions": self.num_resumptions,
                "seed": self.seed,
                "identity": identity,
            }
            self._is_marked = False
            if not self.continued:
                self._write_state()
        except BaseException:
            self._lock.close()
            raise

    def _resumptions(self, state: dict[str, Any] | None) -> int:
        if state is None or state["status"] == "starting":
            return 0
        if state["status"] == "finished":
            raise BenchmarkError(
                f"output directory {self.path} holds a finished run ({state.get('outcome', 'no outcome')}); "
                "name another directory, or remove this one"
            )
        return int(state["num_resumptions"]) + 1

    @property
    def continued(self) -> bool:
        """True if an earlier process of this run died after it had written a checkpoint."""
        return self.num_resumptions > 0

    @property
    def log_path(self) -> Path:
        """The MLPerf log of this process: mlperf.log, or mlperf_continued_<n>.log."""
        if not self.continued:
            return self.path / FIRST_LOG
        return self.path / CONTINUED_LOG.format(self.num_resumptions)

    def mark_running(self) -> None:
        """From now on a death leaves something to continue; a continued run is counted."""
        if not self._is_marked:
            self._state["status"] = "running"
            self._write_state()
            self._is_marked = True

    def mark_finished(self, *, outcome: str, clock: dict[str, Any] | None = None) -> None:
        """The run is over, with "success" or "aborted"; nobody may run here again.

        clock: durations of the run by the wall clock and by the monotonic clock.
        """
        self._state |= {"status": "finished", "outcome": outcome, "clock": clock}
        self._write_state()

    def close(self) -> None:
        """Give the directory back."""
        self._lock.close()

    def _write_state(self) -> None:
        temporary = self.path / f"{STATE_FILE}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self._state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / STATE_FILE)


def was_resumed(log: Path) -> bool:
    """Whether another process went on with the run of this log, into a log of its own."""
    return log.name == FIRST_LOG and any(log.parent.glob(CONTINUED_LOG.format("*")))


def _refuse_foreign_files(path: Path) -> None:
    """A directory with files of somebody else is not written into."""
    if not path.is_dir() or (path / STATE_FILE).exists():
        return
    expected = (LOCK_FILE, f"{STATE_FILE}.tmp", POWER_FOLDER)
    found = sorted(entry.name for entry in path.iterdir() if entry.name not in expected)
    if found:
        raise BenchmarkError(
            f"output directory {path} holds files that are not a run's ({', '.join(found[:3])}); name a new directory"
        )


def _take_lock(path: Path) -> IO[str]:
    lock = open(path / LOCK_FILE, "a+", encoding="utf-8")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise BenchmarkError(
            f"output directory {path} is in use by a live run ({owner}); wait for it, or name another directory"
        ) from None
    except OSError as error:
        lock.close()
        if error.errno not in NO_LOCKS:
            raise
        raise BenchmarkError(
            f"the file system of output directory {path} has no locks ({error.strerror}), without "
            "which a second run could write there too; name a directory on another file system, or "
            "have it mounted with locks (Lustre: -o flock; NFS: without nolock)"
        ) from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()
    return lock


def _read_state(path: Path) -> dict[str, Any] | None:
    file = path / STATE_FILE
    if not file.exists():
        return None
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        if state["status"] not in ("starting", "running", "finished"):
            raise ValueError(f"status {state['status']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{file} cannot be read ({error}); expected the state of a run: name another directory"
        ) from error
    return state


def _check_identity(path: Path, state: dict[str, Any], *, identity: dict[str, Any], seed: int | None) -> None:
    recorded = dict(state["identity"])
    given = dict(identity)
    if seed is not None:
        recorded["seed"], given["seed"] = state["seed"], seed
    for key in sorted(recorded.keys() | given.keys()):
        if recorded.get(key) != given.get(key):
            raise BenchmarkError(
                f"output directory {path} holds an unfinished run with {key} {recorded.get(key)!r}, "
                f"this one has {given.get(key)!r}; repeat the first command, or name another directory"
            )
