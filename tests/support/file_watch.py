"""File events of a folder from the kernel (inotify), including those of other processes."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

ACCESS, OPEN, CREATE, MOVED_TO, OVERFLOW = 0x1, 0x20, 0x100, 0x80, 0x4000
"""IN_ACCESS (bytes were read), IN_OPEN, IN_CREATE, IN_MOVED_TO and IN_Q_OVERFLOW of inotify(7)."""
_NAMES = {ACCESS: "read", OPEN: "opened", CREATE: "created", MOVED_TO: "renamed to"}
_HEADER = struct.Struct("iIII")


@dataclass(frozen=True, kw_only=True)
class FileEvent:
    """One file event."""

    name: str
    action: str
    """"read", "opened", "created" or "renamed to"."""


class FileWatch:
    """Collects events from its creation on. Raises OSError if the system has no inotify."""

    def __init__(self, *folders: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            raise OSError("this system has no inotify")
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1 failed")
        for folder in folders:
            if libc.inotify_add_watch(self._descriptor, os.fsencode(folder), sum(_NAMES)) < 0:
                raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")

    def drain(self) -> list[FileEvent]:
        """Return the events since the last call in their order."""
        events = []
        while True:
            try:
                data = os.read(self._descriptor, 2**16)
            except BlockingIOError:
                return events
            while data:
                _, mask, _, length = _HEADER.unpack_from(data)
                assert not mask & OVERFLOW, "more events than the kernel keeps"
                name = data[_HEADER.size : _HEADER.size + length].rstrip(b"\0").decode()
                data = data[_HEADER.size + length :]
                events += [
                    FileEvent(name=name, action=action)
                    for flag, action in _NAMES.items()
                    if mask & flag and name
                ]

    def close(self) -> None:
        os.close(self._descriptor)
