"""The lock of an output directory, which one process holds at a time.

The kernel releases the lock however the process ends. This distinguishes a directory that is in
use from one that `kill -9` left behind, without guessing from process IDs or file ages. It is a
POSIX record lock, which forked worker processes do not inherit, so a worker that outlives its
parent does not keep it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import IO

LOCK_FILE = "run.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error numbers of a file system without locks."""


class LockError(ValueError):
    """A directory cannot be locked. The message says why and what to do."""


def take_lock(path: Path, *, name: str) -> IO[str]:
    """Lock a directory for this process. Closing the returned file releases the lock.

    Args:
        path: the directory.
        name: what messages call it, with its path.

    Raises:
        LockError: another process holds the lock, or the file system has no locks. Then no new lock
            file stays.
        OSError: the lock file cannot be written.
    """
    lock = _open_locked(path, name)
    while not _is_same_file(lock, path / LOCK_FILE):
        # The process that held the lock has removed the file.
        lock.close()
        lock = _open_locked(path, name)
    try:
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
    except OSError as error:
        lock.close()
        raise OSError(error.errno, error.strerror, str(path / LOCK_FILE)) from error
    return lock


def lock_holder(path: Path) -> str | None:
    """Return the process that holds a directory ("process 12 on node1"), or None.

    It does not take the lock. Raises OSError on a file system without locks.
    """
    if not (path / LOCK_FILE).exists():
        return None
    with open(path / LOCK_FILE, "rb") as file:
        # struct flock on Linux: type, whence, start, length, process.
        layout = "hhqqi4x"
        query = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_ = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, query))
        if kind == fcntl.F_UNLCK:
            return None
        return file.read().decode(errors="replace").strip() or "unknown process"


def _open_locked(path: Path, name: str) -> IO[str]:
    is_new = not (path / LOCK_FILE).exists()
    lock = open(path / LOCK_FILE, "a+", encoding="utf-8")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        lock.seek(0)
        owner = lock.read().strip() or "unknown process"
        lock.close()
        raise LockError(
            f"{name} is in use by a live run ({owner}); wait for it, or name another directory"
        ) from None
    except OSError as error:
        lock.close()
        if is_new:
            (path / LOCK_FILE).unlink(missing_ok=True)
        if error.errno not in NO_LOCKS:
            raise
        raise LockError(
            f"the file system of {name} has no locks ({error.strerror}), so a second run could "
            "write there too; name a directory on another file system, or have it mounted with "
            "locks (Lustre: -o flock; NFS: without nolock)"
        ) from error
    return lock


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
